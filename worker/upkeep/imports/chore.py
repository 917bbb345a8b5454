"""The shard of an import: a tenant's ZIP in, a model that is served by name out, or why not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from sqlalchemy import Engine

from shared.db.files import FileRow, file_of_job
from shared.db.models import Model, get_model
from shared.db.session import autocommit
from shared.lifecycle import BadLine, working
from shared.lifecycle.working import NewModel
from shared.specs.imports import ImportSpec, model_name
from shared.storage.base import Store
from shared.storage.keys import model_prefix
from worker.tuning.data.example import Refused
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.source import Source, seekable
from worker.tuning.planning import digest_of
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.imports.inspection import Found, Rejected, inspect
from worker.upkeep.imports.package import LIMITS, Package
from worker.upkeep.imports.storing import store_model

log = structlog.get_logger()

IMPORT = "import"
"""The kind of the jobs whose only shard this is."""


class ModelImports:
    """Runs the shards of imports, on the threads of the chores."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        ends: ChoreEnds,
        *,
        scratch: Path | None,
        limits: DataLimits = LIMITS,
    ) -> None:
        """``scratch`` is a folder for temporary copies; None: the system's."""
        self._database = database
        self._store = store
        self._ends = ends
        self._scratch = scratch
        self._limits = limits

    def run(self, chore: Chore) -> None:
        """Raises Interrupted, and for the chore's ``judge`` whatever else goes wrong."""
        claim = chore.claim
        spec = ImportSpec.model_validate_json(claim.spec)
        file, base = self._inputs(claim.tenant_id, spec)
        try:
            if file is None:
                raise Refused("not_found", "the file is gone", "file")
            if spec.base_model is not None and base is None:
                raise Refused("base_model_not_found", "the base model is gone", "base_model")
            self._import(chore, spec, file, base)
        except Refused as refusal:
            self._reject(chore, [refusal.bad_line()])
        except Rejected as rejected:
            self._reject(chore, rejected.problems)

    def _inputs(self, tenant_id: str, spec: ImportSpec) -> tuple[FileRow | None, Model | None]:
        with autocommit(self._database) as connection:
            file = file_of_job(connection, tenant_id, spec.file)
            base = get_model(connection, tenant_id, spec.base_model) if spec.base_model else None
        return file, base

    def _import(self, chore: Chore, spec: ImportSpec, file: FileRow, base: Model | None) -> None:
        """Stores the model and ends the job. Raises Refused or Rejected."""
        interrupted = chore.interrupted.is_set
        source = Source(file.filename, file.bytes, lambda: self._store.read(file.storage_key))
        with (
            seekable(
                source.interruptible(interrupted), self._scratch, self._limits.archive_bytes
            ) as archive,
            tempfile.TemporaryDirectory(prefix="import-", dir=self._scratch) as folder,
        ):
            package = Package(archive, self._limits)
            found = inspect(package, Path(folder), base, self._store, interrupted)
            self._accept(chore, spec, package, found, interrupted)

    def _accept(
        self,
        chore: Chore,
        spec: ImportSpec,
        package: Package,
        found: Found,
        interrupted: Callable[[], bool],
    ) -> None:
        claim = chore.claim
        prefix = model_prefix(claim.tenant_id, claim.job_id, claim.epoch)
        files = store_model(self._store, prefix, package, found, interrupted)
        kind = found.layout.kind
        model = NewModel(
            id=model_name(claim.tenant_id, spec, claim.job_id),
            pool=kind.pool,
            engine=kind.engine,
            base_model=spec.base_model,
            adapter=kind.adapter,
            endpoints=kind.endpoints,
            files=files,
            bytes=sum(file.bytes for file in files),
            detail={
                "imported": found.report(),
                "parents": [] if spec.base_model is None else [spec.base_model],
                "base_model": spec.base_model,
                "digest": digest_of(files),
            },
            owned_by=claim.tenant_id,
        )
        self._ends.commit(
            chore,
            lambda connection: working.finish_import(
                connection, chore.session_id, claim.held, model
            ),
        )
        log.info("model_imported", job=claim.job_id, engine=kind.engine, bytes=model.bytes)

    def _reject(self, chore: Chore, problems: Sequence[BadLine]) -> None:
        claim = chore.claim
        self._ends.commit(
            chore,
            lambda connection: working.reject_import(
                connection, chore.session_id, claim.held, errors=problems
            ),
        )
        log.info("import_refused", job=claim.job_id, codes=sorted({p.code for p in problems}))
