"""Workers as processes over a real database and a real store, and jobs that make files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Row, text

from shared import lifecycle
from shared.ids import new_batch_id, new_file_id, new_job_id
from shared.models_catalog import ModelEntry
from shared.storage.base import Store
from shared.storage.local import LocalStore
from tests.plant import SIGNING_KEY, Plant, wait_until

IMAGES = "/v1/images/generations"
EDITS = "/v1/images/edits"
TENANT = "ten_a"
OTHER = "ten_b"
PUBLIC_URL = "https://plant.example"

PICTURES = ModelEntry(id="pictures", engine="fake", pool="image")
SLOW_PICTURES = ModelEntry(
    id="slow-pictures", engine="fake", pool="image", settings={"seconds_per_row": 2.0}
)
"""A row takes two seconds, rows side by side."""


class MediaPlant:
    """Two tenants, a store, and the processes that a test starts."""

    def __init__(self, plant: Plant, store: Store) -> None:
        self.plant = plant
        self.store = store
        for tenant in (TENANT, OTHER):
            self.sql("INSERT INTO tenants (id, name) VALUES (:id, :id)", id=tenant)

    def start(self, *names: str) -> MediaPlant:
        """``upkeep``, or a worker of the image pool by any other name."""
        for name in names:
            self.plant.start_worker(name, "upkeep" if name == "upkeep" else "image")
        return self

    def sql(self, statement: str, **values: Any) -> Sequence[Row[Any]]:
        with self.plant.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    # --- what tenants do ------------------------------------------------------------------

    def file(self, data: bytes, tenant: str = TENANT, *, stored: bool = True) -> str:
        file_id = new_file_id()
        key = f"t/{tenant}/f/{file_id}"
        if stored:
            self.store.put_bytes(key, data, media_type="application/octet-stream")
        self.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            " VALUES (:id, :tenant, 'f', 'batch', :bytes, 'sha', :key)",
            id=file_id,
            tenant=tenant,
            bytes=len(data),
            key=key,
        )
        return file_id

    def single(self, body: dict[str, Any], endpoint: str = IMAGES, model: str = "pictures") -> str:
        job_id = new_job_id()
        with self.plant.engine.begin() as connection:
            lifecycle.submit_generation(
                connection,
                job_id=job_id,
                tenant_id=TENANT,
                pool="image",
                endpoint=endpoint,
                model=model,
                body={"model": model} | body,
                window=32,
            )
        return job_id

    def batch(self, bodies: Sequence[dict[str, Any]], endpoint: str = IMAGES) -> str:
        lines = [
            {"custom_id": f"row-{n}", "method": "POST", "url": endpoint, "body": body}
            for n, body in enumerate(bodies)
        ]
        file_id = self.file(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        job_id = new_batch_id()
        with self.plant.engine.begin() as connection:
            lifecycle.submit_batch(
                connection,
                job_id=job_id,
                tenant_id=TENANT,
                endpoint=endpoint,
                input_file_id=file_id,
                spec={},
                expires_in_seconds=3_600,
                window=32,
            )
        return job_id

    # --- what became of it ----------------------------------------------------------------

    def job(self, job_id: str) -> Row[Any]:
        (row,) = self.sql("SELECT * FROM jobs WHERE id = :id", id=job_id)
        return row

    def wait(self, job_id: str, timeout_seconds: float = 90.0) -> Row[Any]:
        """The job once it has ended."""
        wait_until(lambda: self.job(job_id).ended_at is not None, timeout_seconds, self.logs)
        return self.job(job_id)

    def logs(self) -> str:
        return "\n".join(process.log()[-3000:] for process in self.plant.processes.values())

    def artifacts(self, job_id: str) -> list[Row[Any]]:
        return list(
            self.sql("SELECT * FROM artifacts WHERE job_id = :id ORDER BY line, name", id=job_id)
        )

    def events(self, job_id: str, kind: str) -> list[dict[str, Any]]:
        rows = self.sql(
            "SELECT data FROM events WHERE job_id = :id AND type = :kind ORDER BY id",
            id=job_id,
            kind=kind,
        )
        return [row.data for row in rows]

    def lines(self, job_id: str) -> dict[str, dict[str, Any]]:
        """Every line of the batch's files by custom_id; fails on a repeated one."""
        found: dict[str, dict[str, Any]] = {}
        keys = self.sql(
            "SELECT f.storage_key FROM files f JOIN jobs j"
            " ON f.id IN (j.output_file_id, j.error_file_id) WHERE j.id = :id",
            id=job_id,
        )
        for row in keys:
            for line in b"".join(self.store.read(row.storage_key)).splitlines():
                said = json.loads(line)
                assert said["custom_id"] not in found
                found[said["custom_id"]] = said
        return found

    def spools(self) -> list[Path]:
        return list((self.plant.folder / "scratch").glob("spool-*"))

    def scratch(self) -> list[Path]:
        """Files in the workers' spools; no folders, no locks."""
        root = self.plant.folder / "scratch"
        return [path for path in root.glob("spool-*/**/*") if path.is_file()]


@contextmanager
def media_plant(
    folder: Path, database_url: str, *, store: Store | None = None, **settings: str
) -> Iterator[MediaPlant]:
    models = (PICTURES, SLOW_PICTURES)
    settings = {"PUBLIC_URL": PUBLIC_URL} | settings
    with Plant(folder, database_url, models=models, settings=settings) as plant:
        yield MediaPlant(plant, store or LocalStore(folder / "artifacts", SIGNING_KEY))
