"""Trainings with the fake recipe: jobs whose data are accepted, and workers that run them in this
process, each with a session and a desk of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import psutil
from sqlalchemy import Engine

from shared import lifecycle
from shared.db.models import sync_catalog
from shared.doorbell import Ringer
from shared.ids import new_file_id, new_id
from shared.lifecycle import working
from shared.lifecycle.working import Claim, Held
from shared.models_catalog import ModelEntry
from shared.pools import TRAIN, UPKEEP
from shared.storage.local import LocalStore, LocalWriter
from tests.integration.protocol import TENANT, WINDOW, Plant
from tests.plant import wait_until
from worker.engines.child import engine_environment
from worker.model_files import ModelFiles
from worker.recipes.fake import GO
from worker.tuning.trainings import Trainings

PATIENCE_SECONDS = 60.0
BASE = "fake"
STEPS, INTERVAL = 20, 5


class FlakyStore(LocalStore):
    """Takes nothing while it has a fault."""

    fault: Exception | None = None

    def writer(self, key: str, *, media_type: str) -> LocalWriter:
        if self.fault is not None:
            raise self.fault
        return super().writer(key, media_type=media_type)


class OpenSession:
    """A lease, and whether it was declared dead."""

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.lost = False

    def is_lost(self, session_id: str) -> bool:
        assert session_id == self.id
        return self.lost


class Worker:
    """One worker of the pool ``train``; its owner calls ``watch`` as a supervisor does."""

    def __init__(
        self,
        plant: Plant,
        store: LocalStore,
        folder: Path,
        name: str,
        *,
        database: Engine | None = None,
        idle_seconds: float = 60.0,
    ) -> None:
        self.plant = plant
        self.folder = folder / name
        self.session = OpenSession(plant.session(name, pools=[TRAIN]))
        self.closed: Queue[Held] = Queue()
        self.desk = Trainings(
            database or plant.engine,
            store,
            self.session,  # type: ignore[arg-type]
            Ringer(""),
            ModelFiles(store, folder / "models"),
            on_closed=self.closed.put,
            folder=self.folder,
            environment=engine_environment(os.environ),
            slots=1,
            threads=1,
            idle_seconds=idle_seconds,
        )

    def begin(self) -> Claim:
        """Claims the training that waits, whatever its delay, and starts it."""
        self.plant.sql("UPDATE shards SET not_before = clock_timestamp() WHERE state = 'ready'")
        self.plant.dispatch(TRAIN)
        claim = self.plant.claim_one(self.session.id, pools=[TRAIN])
        self.desk.begin(claim, self.session.id)
        return claim

    def watch(self) -> None:
        with self.plant.connection() as connection:
            self.desk.obey(working.watch(connection, self.session.id))

    def wait(self, *, watching: bool = True) -> Held:
        """Until the training is off the books."""
        found: list[Held] = []

        def closed() -> bool:
            if watching:
                self.watch()
            try:
                found.append(self.closed.get(timeout=0.1))
            except Empty:
                return False
            return True

        wait_until(closed, PATIENCE_SECONDS, lambda: str(self.processes()), pause_seconds=0)
        return found[0]

    def run(self) -> Claim:
        """Claims a training and sees it to its end."""
        claim = self.begin()
        self.wait()
        return claim

    def go(self) -> None:
        """Lets a training go on that was told to wait."""
        (folder,) = self.folder.iterdir()
        (folder / GO).touch()

    def processes(self) -> list[psutil.Process]:
        """Every process that knows this worker's folder."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            named = any(str(self.folder) in word for word in process.info["cmdline"] or ())
            if named and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


class Hall:
    """A plant whose tenants train, and its workers."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.plant = Plant(database_url)
        self.folder = folder
        self.store = FlakyStore(folder / "store", "a signing key of some length")
        self.workers: list[Worker] = []
        self.plant.session("upkeep", pools=[UPKEEP])
        with self.plant.engine.begin() as connection:
            sync_catalog(connection, [ModelEntry(id=BASE, engine="fake")])

    def worker(self, name: str = "w1", **options: Any) -> Worker:
        worker = Worker(self.plant, self.store, self.folder / "scratch", name, **options)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.desk.close()
        self.plant.close()

    def job(
        self,
        commands: str = "",
        *,
        data: bytes | None = None,
        steps: int = STEPS,
        **spec: Any,
    ) -> str:
        """A job whose data were accepted; ``commands`` are those of ``worker.recipes.fake``."""
        file_id, job_id = new_file_id(), new_id("ftjob-")
        key = f"t/{TENANT}/f/{file_id}"
        stored = self.store.put_bytes(
            key, data or rows(12, commands), media_type="application/jsonl"
        )
        self.plant.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            " VALUES (:id, :tenant, 'train.jsonl', 'fine-tune', :bytes, :sha256, :key)",
            id=file_id,
            tenant=TENANT,
            bytes=stored.bytes,
            sha256=stored.sha256,
            key=key,
        )
        method = {"type": "supervised", "supervised": {"hyperparameters": {"max_steps": steps}}}
        body = {
            "model": BASE,
            "training_file": file_id,
            "method": method,
            "checkpoints": {"every_steps": INTERVAL},
            "seed": 7,
        } | spec
        with self.plant.engine.begin() as connection:
            lifecycle.submit_fine_tune(
                connection,
                job_id=job_id,
                tenant_id=TENANT,
                model=BASE,
                training_file_id=file_id,
                spec=json.dumps(body),
                metadata=None,
                window=WINDOW,
            )
        self._accept(job_id)
        return job_id

    def pause(self, job_id: str) -> bool:
        with self.plant.engine.begin() as connection:
            return lifecycle.request_pause(connection, tenant_id=TENANT, job_id=job_id)

    def resume(self, job_id: str) -> bool:
        with self.plant.engine.begin() as connection:
            return lifecycle.request_resume(connection, tenant_id=TENANT, job_id=job_id)

    def _accept(self, job_id: str) -> None:
        self.plant.dispatch(UPKEEP)
        (claim,) = [c for c in self.plant.claim("upkeep", pools=[UPKEEP]) if c.job_id == job_id]
        with self.plant.engine.begin() as connection:
            assert working.open_training(
                connection, "upkeep", claim.held, found={"examples": 12}, card=None
            )

    # --- what is there ------------------------------------------------------------------------

    def shard(self, job_id: str) -> Any:
        """The training's shard."""
        return self.plant.shards(job_id)[-1]

    def metrics(self, job_id: str) -> dict[int, dict[str, float]]:
        """Step → values."""
        rows_ = self.plant.sql(
            "SELECT step, values FROM training_metrics WHERE job_id = :id ORDER BY step", id=job_id
        )
        return {row.step: row.values for row in rows_}

    def checkpoints(self, job_id: str) -> Sequence[Any]:
        """Those that are kept, the newest first."""
        return self.plant.sql(
            "SELECT * FROM checkpoints WHERE job_id = :id AND dropped_at IS NULL"
            " ORDER BY epoch DESC, step DESC",
            id=job_id,
        )

    def wait_step(self, job_id: str, step: int) -> None:
        """Until the numbers of that step are written."""
        wait_until(
            lambda: step in self.metrics(job_id),
            PATIENCE_SECONDS,
            lambda: str(self.plant.job(job_id)),
        )

    def wait_checkpoint(self, job_id: str, step: int, worker: Worker) -> None:
        """Until the checkpoint of that step, or a later one, is committed."""

        def committed() -> bool:
            worker.watch()
            return any(row.step >= step for row in self.checkpoints(job_id))

        wait_until(committed, PATIENCE_SECONDS, lambda: str(self.plant.job(job_id)))

    def model(self, job_id: str) -> Any:
        """The row of the model that the job has made."""
        name = self.plant.job(job_id).result["fine_tuned_model"]
        (row,) = self.plant.sql("SELECT * FROM models WHERE id = :id", id=name)
        return row

    def weights(self, job_id: str) -> str:
        """SHA-256 of the delivered weights."""
        (found,) = [f for f in self.model(job_id).files if f["path"] == "model.safetensors"]
        return str(found["sha256"])

    def notes(self, job_id: str) -> list[str]:
        found = self.plant.sql(
            "SELECT data FROM events WHERE job_id = :id AND type = 'fine_tune.note' ORDER BY id",
            id=job_id,
        )
        return [row.data["message"] for row in found]

    def objects(self, part: str) -> list[str]:
        """Keys in the store that contain ``part``."""
        root = self.folder / "store"
        keys = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return sorted(key for key in keys if part in key)


def rows(count: int, commands: str = "") -> bytes:
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"question {number}"},
                {"role": "assistant", "content": f"answer {number} {commands}"},
            ]
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
