"""A batch outlives its store and its database: an outage charges no budget and holds nothing up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import OperationalError

from shared.db.models import sync_catalog
from shared.doorbell import Ringer
from shared.errors import StorageFull, StorageUnavailable
from shared.lifecycle import working
from shared.lifecycle.settle import MAX_ERRORS
from shared.lifecycle.working import Claim, Held
from shared.models_catalog import ModelEntry
from shared.states import JobState
from shared.storage.local import LocalStore
from tests.integration.protocol import CHAT, Plant, slice_end
from tests.live_session import LiveSession
from worker.outputs import store_lines
from worker.upkeep.chores import UpkeepChores

PATIENCE_SECONDS = 30.0
LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": CHAT,
    "body": {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
}


class FlakyStore(LocalStore):
    """Fails as it is told to, until it is told to work again."""

    fault: Exception | None = None

    def read(self, *arguments: Any, **options: Any) -> Iterator[bytes]:
        if self.fault is not None:
            raise self.fault
        return super().read(*arguments, **options)


class Upkeep:
    """The upkeep work of one worker, a shard at a time."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self.plant = plant
        self.store = FlakyStore(folder, "a signing key of some length")
        self.closed: Queue[Held] = Queue()
        plant.session("w1", pools=["upkeep"])
        self.chores = self.with_database(plant.engine)
        with plant.engine.begin() as connection:
            sync_catalog(connection, [ModelEntry(id="m", engine="fake", endpoints=[CHAT])])

    def with_database(self, engine: Any) -> UpkeepChores:
        return UpkeepChores(
            engine,
            self.store,
            LiveSession(),  # type: ignore[arg-type]
            Ringer(""),
            on_closed=self.closed.put,
            max_rows=100,
            max_line_bytes=10_000,
            max_reported=10,
        )

    def attempt(self) -> Claim:
        """Claims the one shard that waits, whatever its delay, and runs it to its end."""
        self.plant.sql("UPDATE shards SET not_before = clock_timestamp() WHERE state = 'ready'")
        claim = self.plant.claim_one("w1", pools=["upkeep"])
        self.chores.begin(claim, "w1")
        assert self.closed.get(timeout=PATIENCE_SECONDS) == claim.held
        return claim

    def batch_with_input(self) -> str:
        job_id = self.plant.batch()
        key = self.plant.scalar("SELECT storage_key FROM files")
        self.store.put_bytes(key, json.dumps(LINE).encode() + b"\n", media_type="x")
        return job_id

    def generate(self) -> None:
        self.plant.dispatch()
        claim = self.plant.claim_one("w1", pools=["text"])
        stored = store_lines(self.store, claim, "output.jsonl", [b'{"custom_id":"a"}\n'])
        end = slice_end(claim)
        fields = {name: getattr(end, name) for name in end.__slots__} | {"output": stored}
        with self.plant.engine.begin() as connection:
            assert working.finish_slice(connection, "w1", type(end)(**fields))


@pytest.fixture
def upkeep(database_url: str, tmp_path: Path) -> Iterator[Upkeep]:
    plant = Plant(database_url)
    upkeep = Upkeep(plant, tmp_path)
    yield upkeep
    upkeep.chores.close()
    plant.close()


FAULTS = [StorageUnavailable("no answer"), StorageFull("no room")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_batch_outlives_an_outage_of_its_store(upkeep: Upkeep, fault: Exception) -> None:
    job_id = upkeep.batch_with_input()
    delays = []
    for stage in ("validate", "assemble"):
        upkeep.store.fault = fault
        for _ in range(MAX_ERRORS + 1):
            claim = upkeep.attempt()
            assert claim.stage == stage
            delays.append(
                upkeep.plant.scalar(
                    "SELECT not_before > clock_timestamp() FROM shards WHERE id = :id",
                    id=claim.shard_id,
                )
            )
        upkeep.store.fault = None
        upkeep.attempt()
        if stage == "validate":
            upkeep.generate()
    job = upkeep.plant.job(job_id)
    assert (job.state, job.rows_completed) == (JobState.SUCCEEDED, 1)
    assert all(delays)  # a store that is down is not asked without pause
    assert upkeep.plant.scalar("SELECT max(error_n) FROM shards") == 0


class Faltering:
    """A database that is lost at every other commit: before it, or when it was done already."""

    def __init__(self, engine: Engine, when: str) -> None:
        self._engine = engine
        self._when = when
        self._begun = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        self._begun += 1
        fails = self._begun % 2 == 1
        lost = OperationalError("COMMIT", {}, Exception("the connection is lost"))
        with self._engine.begin() as connection:
            yield connection
            if fails and self._when == "before":
                raise lost
        if fails and self._when == "after":
            raise lost


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_without_an_answer_is_asked_for_again(upkeep: Upkeep, when: str) -> None:
    """Whichever way it went, the batch goes on, once, and no attempt was made in vain."""
    job_id = upkeep.batch_with_input()
    upkeep.chores.close()
    upkeep.chores = upkeep.with_database(Faltering(upkeep.plant.engine, when))
    assert upkeep.attempt().stage == "validate"
    upkeep.generate()
    assert upkeep.attempt().stage == "assemble"
    job = upkeep.plant.job(job_id)
    assert (job.state, job.rows_completed) == (JobState.SUCCEEDED, 1)
    shards = upkeep.plant.shards(job_id)
    assert [shard.stage for shard in shards] == ["validate", "generate", "assemble"]
    assert {(shard.epoch, shard.error_n, shard.fenced_n) for shard in shards} == {(1, 0, 0)}
    told = ["batch.in_progress", "batch.finalizing", "batch.completed"]
    assert upkeep.plant.events(job_id) == told
    made = upkeep.plant.sql("SELECT 1 FROM files WHERE purpose = 'batch_output'")
    assert len(made) == 1


@pytest.mark.parametrize(
    "damaged", [b"other bytes\n", b'{"custom_id":"b"}\n'], ids=["shorter", "of_its_length"]
)
def test_a_damaged_result_is_charged_and_told(upkeep: Upkeep, damaged: bytes) -> None:
    job_id = upkeep.batch_with_input()
    upkeep.attempt()
    upkeep.generate()
    key = upkeep.plant.scalar("SELECT output_key FROM shards WHERE stage = 'generate'")
    upkeep.store.put_bytes(key, damaged, media_type="x")
    for _ in range(MAX_ERRORS):
        upkeep.attempt()
    job = upkeep.plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "internal_error")
    assert key not in job.error_message


def test_a_worker_can_leave_while_the_database_is_away(upkeep: Upkeep) -> None:
    """Nothing listens at that address; the chore's shard could be given back for ever."""
    upkeep.batch_with_input()
    claim = upkeep.plant.claim_one("w1", pools=["upkeep"])
    nowhere = create_engine("postgresql+psycopg://x@127.0.0.1:1/x")
    chores = upkeep.with_database(nowhere)
    chores.begin(claim, "w1")
    leaving = threading.Thread(target=chores.close)
    leaving.start()
    leaving.join(PATIENCE_SECONDS)
    assert not leaving.is_alive()
