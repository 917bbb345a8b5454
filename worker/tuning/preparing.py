"""Bringing together what a training needs: data, base model, the checkpoint to go on from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import Engine

from shared.db.checkpoints import CheckpointRow, newest_checkpoints
from shared.db.files import file_of_job
from shared.db.models import Model, models_by_id
from shared.db.session import autocommit
from shared.errors import NotFound
from shared.lifecycle import BadLine
from shared.lifecycle.working import Claim
from shared.specs.fine_tuning import FROM_SCRATCH, FineTuningSpec, seed_of
from shared.storage.base import Store
from worker.inputs import Leaving
from worker.model_paths import ModelDamaged
from worker.tuning.checkpoint_store import Corrupt, download, fetch_checkpoint
from worker.tuning.data.materialise import DataChanged, materialise
from worker.tuning.data.source import Source
from worker.tuning.messages import CHECKPOINTS, Plan, write_plan
from worker.tuning.planning import Base, DataFound, make_plan, model_name
from worker.upkeep.assembly import Interrupted

log = structlog.get_logger()

UPLOADS, RESUME = "uploads", "resume"


class CannotTrain(Exception):
    """The training can never begin, and that is the tenant's: the job fails with ``code``."""

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        *,
        errors: Sequence[BadLine] = (),
    ) -> None:
        """``errors`` are bad lines of a file that is judged here."""
        super().__init__(message)
        self.code, self.message, self.param = code, message, param
        self.errors = errors


class FindsModels(Protocol):
    """``worker.model_files.ModelFiles``."""

    def local(self, model: Model, leaving: Callable[[], bool]) -> Path: ...

    def path(self, model: Model) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A folder that a recipe can be started in."""

    plan: Plan
    base: Base
    data: DataFound
    notes: Sequence[str]
    """For the tenant, worth a warning each."""
    models: Sequence[Model] = ()
    """Whose files the training reads in place, as long as it runs."""


@dataclass(frozen=True, slots=True)
class _Upload:
    source: Source
    said: dict[str, Any]


class Preparation:
    """One training's; ``run`` fills ``folder`` and writes its plan."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        threads: Executor,
        models: FindsModels,
        *,
        claim: Claim,
        spec: FineTuningSpec,
        folder: Path,
        interrupted: Callable[[], bool],
    ) -> None:
        self._database = database
        self._store = store
        self._threads = threads
        self._models = models
        self._claim = claim
        self._spec = spec
        self._folder = folder
        self._interrupted = interrupted
        self._notes: list[str] = []
        self._fetched: list[Model] = []

    def run(self) -> Prepared:
        """Raises CannotTrain, Interrupted, StorageUnavailable, SQLAlchemyError or OSError."""
        claim, spec = self._claim, self._spec
        base = self._base()
        data = self._data()
        resume = self._checkpoint()
        (self._folder / CHECKPOINTS).mkdir(exist_ok=True)
        name = model_name(spec, claim.tenant_id, claim.job_id)
        plan = make_plan(spec, name=name, job_id=claim.job_id, base=base, data=data, resume=resume)
        write_plan(self._folder, plan)
        return Prepared(plan, base, data, self._notes, self._fetched)

    # --- data -------------------------------------------------------------------------------

    def _data(self) -> DataFound:
        spec, uploads = self._spec, self._folder / UPLOADS
        uploads.mkdir()
        training = self._upload("training_file", spec.training_file, uploads)
        validation = None
        if spec.validation_file is not None:
            validation = self._upload("validation_file", spec.validation_file, uploads)
        try:
            made = materialise(
                spec.recipe,
                spec,
                training.source,
                None if validation is None else validation.source,
                self._folder,
                seed_of(spec, self._claim.job_id),
                interrupted=self._interrupted,
                scratch=uploads,
            )
        except DataChanged as error:
            raise CannotTrain(error.code, error.message, error.param) from None
        shutil.rmtree(uploads)
        said: dict[str, Any] = {
            "examples": made.examples,
            "validation_examples": made.validation_examples,
            "training_file": training.said,
        }
        if validation is not None:
            said["validation_file"] = validation.said
        return DataFound(made.labels, said)

    def _upload(self, param: str, file_id: str, folder: Path) -> _Upload:
        """A file of the tenant's, on this machine."""
        with autocommit(self._database) as connection:
            row = file_of_job(connection, self._claim.tenant_id, file_id)
        if row is None:
            raise CannotTrain("not_found", f"The {param} is gone.", param)
        path = folder / param
        try:
            sha256 = download(self._store, row.storage_key, path, self._interrupted)
        except NotFound:
            raise CannotTrain("not_found", f"The {param} is gone.", param) from None
        source = Source.of_file(path, row.filename)
        return _Upload(source, {"id": row.id, "bytes": row.bytes, "sha256": sha256})

    # --- the base model -----------------------------------------------------------------------

    def _base(self) -> Base:
        name = self._spec.model
        model = self._model(name)
        if model is None:
            if self._spec.recipe in FROM_SCRATCH and name == self._spec.recipe:
                return Base(name)
            raise CannotTrain("model_not_found", f"There is no model {name!r}.", "model")
        parents = [model.id, *model.detail.get("parents", ())]
        if not model.adapter:
            return Base(name, model, self._source(model), parents=parents)
        below = self._model(model.base_model) if model.base_model else None
        if below is None:
            message = f"{name!r} is an adapter, and its base model is not there."
            raise CannotTrain("base_model_not_found", message, "model")
        return Base(name, model, self._source(below), self._source(model), parents)

    def _model(self, name: str) -> Model | None:
        with autocommit(self._database) as connection:
            return models_by_id(connection, [name]).get(name)

    def _source(self, model: Model) -> str:
        if not model.files:
            return model.source
        try:
            folder = self._models.local(model, self._interrupted)
        except Leaving:
            raise Interrupted from None
        except (ModelDamaged, NotFound) as error:
            raise CannotTrain("model_damaged", f"{model.id!r}: {error}", "model") from None
        self._fetched.append(model)
        return str(folder)

    # --- the checkpoint -----------------------------------------------------------------------

    def _checkpoint(self) -> str:
        """The folder of the newest one that is whole; empty to start at the beginning."""
        with autocommit(self._database) as connection:
            rows = newest_checkpoints(connection, self._claim.job_id)
        for number, row in enumerate(rows):
            folder = self._folder / RESUME / str(number)
            if self._fetch(row, folder):
                return str(folder)
            shutil.rmtree(folder, ignore_errors=True)
        return ""

    def _fetch(self, row: CheckpointRow, folder: Path) -> bool:
        folder.mkdir(parents=True)
        try:
            fetch_checkpoint(
                self._store,
                self._threads,
                manifest_key=row.manifest_key,
                manifest_sha256=row.manifest_sha256,
                folder=folder,
                interrupted=self._interrupted,
            )
        except Corrupt as error:
            log.error(
                "checkpoint_corrupt", job=self._claim.job_id, step=row.step, reason=str(error)
            )
            self._notes.append(
                f"the checkpoint of step {row.step} is damaged ({error}); it was passed over"
            )
            return False
        return True
