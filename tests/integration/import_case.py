"""Imports as one upkeep worker runs them, on a database and a store of the test's own."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from shared import lifecycle
from shared.db.models import Model, get_model
from shared.doorbell import Ringer
from shared.ids import new_file_id, new_import_id
from shared.lifecycle.working import Claim
from shared.storage.local import LocalStore
from tests.integration.protocol import TENANT, WINDOW, Plant
from tests.live_session import LiveSession
from worker.model_files import ModelFiles
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.imports.chore import ModelImports


def zip_folder(folder: Path, changed: Mapping[str, bytes | None] | None = None) -> bytes:
    """A folder as a ZIP; ``changed`` files are added, replaced, or (None) left out."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as package:
        for name, data in (files | dict(changed or {})).items():
            if data is not None:
                package.writestr(name, data)
    return archive.getvalue()


class ImportPlant(Plant):
    """A database, a store, and one upkeep worker's import work."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url)
        self.store = LocalStore(folder / "a store", "a signing key of some length")
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.files = ModelFiles(self.store, folder / "models")
        ends = ChoreEnds(self.engine, LiveSession(), Ringer(""))  # type: ignore[arg-type]
        self.imports = ModelImports(self.engine, self.store, ends, scratch=self.scratch)
        self.session("up", pools=["upkeep"])

    def submit(self, data: bytes, tenant: str = TENANT, **spec: Any) -> str:
        file_id, job_id = new_file_id(), new_import_id()
        stored = self.store.put_bytes(f"t/{tenant}/f/{file_id}", data, media_type="x")
        self.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            " VALUES (:id, :tenant, 'model.zip', 'model', :bytes, :sha256, :key)",
            id=file_id, tenant=tenant, bytes=stored.bytes, sha256=stored.sha256, key=stored.key,
        )  # fmt: skip
        said = {"file": file_id, "suffix": "mine"} | spec
        with self.engine.begin() as connection:
            lifecycle.submit_import(
                connection,
                job_id=job_id,
                tenant_id=tenant,
                file_id=file_id,
                base_model=spec.get("base_model"),
                spec=json.dumps(said),
                metadata=None,
                window=WINDOW,
            )
        return job_id

    def claim_import(self) -> Claim:
        return self.claim_one("up", pools=["upkeep"])

    def run(self, claim: Claim) -> None:
        self.imports.run(Chore(claim, "up"))

    def bring(self, data: bytes, **spec: Any) -> Row[Any]:
        """The job of an import, at its end."""
        job_id = self.submit(data, **spec)
        self.run(self.claim_import())
        return self.job(job_id)

    def model(self, name: str, tenant: str = TENANT) -> Model | None:
        with self.connection() as connection:
            return get_model(connection, tenant, name)

    def model_of(self, job: Row[Any]) -> Model:
        assert job.state == "succeeded", (job.error_code, job.error_message, job.errors)
        found = self.model(job.result["model"])
        assert found is not None
        return found

    def folder_of(self, job: Row[Any]) -> Path:
        """The model's files as an engine gets them."""
        return self.files.local(self.model_of(job))

    def objects(self) -> list[str]:
        """Keys below the tenant's models."""
        root = self.store_root()
        return sorted(str(p.relative_to(root)) for p in root.rglob("m/*/*/*") if p.is_file())

    def store_root(self) -> Path:
        return self.scratch.parent / "a store"
