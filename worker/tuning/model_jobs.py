"""Bringing together what jobs about models need: the models, and examples to look at them with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from shared.db.files import file_of_job
from shared.db.models import Model, models_by_id
from shared.db.session import autocommit
from shared.errors import NotFound
from shared.specs.fine_tuning import FineTuningSpec, RecipeName, seed_of
from shared.specs.model_jobs import (
    METRICS,
    EvaluationSpec,
    OptimizationSpec,
    evaluations_of,
    metric_of,
)
from worker.inputs import Leaving
from worker.model_paths import ModelDamaged
from worker.tuning.checkpoint_store import download
from worker.tuning.data.materialise import DataChanged, materialise
from worker.tuning.data.source import Source
from worker.tuning.evaluation_data import keep_first, lay_out
from worker.tuning.messages import Optimization, Plan, Subject, write_plan
from worker.tuning.model_names import optimized_name
from worker.tuning.planning import Base, DataFound
from worker.tuning.preparing import CannotTrain, Prepared
from worker.tuning.training import Means, Order
from worker.upkeep.assembly import Interrupted

UPLOADS = "uploads"
EVALUATE, OPTIMIZE = "evaluate", "optimize"
"""Stories of ``worker.recipes.registry``."""
_PLAIN = {"precision": "fp32"}
"""Models are loaded in the dtype they are served in; nothing is to be cast besides."""


class Gathering:
    """What one job needs, in its folder."""

    def __init__(self, means: Means, order: Order, folder: Path, param: str) -> None:
        """``param`` is the field that names the examples."""
        self._means, self._order, self._folder, self._param = means, order, folder, param
        self.fetched: list[Model] = []

    # --- models -------------------------------------------------------------------------------

    def subject(self, name: str, param: str) -> tuple[Subject, Base]:
        """A model as it is served. Raises CannotTrain or Interrupted."""
        model = self._model(name)
        if model is None:
            raise CannotTrain("model_not_found", f"There is no model {name!r}.", param)
        below, adapter = model, ""
        if model.adapter:
            found = self._model(model.base_model) if model.base_model else None
            if found is None:
                message = f"{name!r} is an adapter, and its base model is not there."
                raise CannotTrain("base_model_not_found", message, param)
            below, adapter = found, self._local(model, param)
        source = self._local(below, param)
        subject = Subject(
            name=name,
            engine=below.engine,
            source=source,
            adapter=adapter,
            settings=below.settings,
        )
        parents = [model.id, *model.detail.get("parents", ())]
        return subject, Base(name, model, source, adapter, parents)

    def _model(self, name: str) -> Model | None:
        with autocommit(self._means.database) as connection:
            return models_by_id(connection, [name]).get(name)

    def _local(self, model: Model, param: str) -> str:
        if not model.files:
            return model.source
        try:
            folder = self._means.models.local(model, self._order.unwanted)
        except Leaving:
            raise Interrupted from None
        except (ModelDamaged, NotFound) as error:
            raise CannotTrain("model_damaged", f"{model.id!r}: {error}", param) from None
        self.fetched.append(model)
        return str(folder)

    # --- examples -----------------------------------------------------------------------------

    def examples(self, recipe: str, file_id: str, most: int | None) -> dict[str, Any]:
        """Of a file; gives what the model's card says of it."""
        source, said = self._upload(self._param, file_id)
        count = lay_out(
            cast(RecipeName, recipe),
            source,
            self._folder,
            param=self._param,
            most=most,
            interrupted=self._order.unwanted,
        )
        self._forget_uploads()
        return {"examples": count, self._param: said}

    def held_out(self, spec: FineTuningSpec, job_id: str, most: int | None) -> dict[str, Any]:
        """What a fine-tuning held out, by its own rules: its validation file, or the same rows of
        its training file as then."""
        training, said = self._upload("training_file", spec.training_file)
        validation = None
        if spec.validation_file is not None:
            validation, said = self._upload("validation_file", spec.validation_file)
        try:
            materialise(
                spec.recipe,
                spec,
                training,
                validation,
                self._folder,
                seed_of(spec, job_id),
                interrupted=self._order.unwanted,
                scratch=self._folder,
            )
        except DataChanged as error:
            raise CannotTrain(error.code, error.message, self._param) from None
        self._forget_uploads()
        return {"examples": keep_first(self._folder, most), "held_out_of": job_id, "file": said}

    def _upload(self, name: str, file_id: str) -> tuple[Source, dict[str, Any]]:
        claim = self._order.claim
        with autocommit(self._means.database) as connection:
            row = file_of_job(connection, claim.tenant_id, file_id)
        gone = CannotTrain("not_found", f"The file {file_id} is gone.", self._param)
        if row is None:
            raise gone
        path = self._folder / UPLOADS / name
        path.parent.mkdir(exist_ok=True)
        try:
            sha256 = download(self._means.store, row.storage_key, path, self._order.unwanted)
        except NotFound:
            raise gone from None
        said = {"id": row.id, "bytes": row.bytes, "sha256": sha256}
        return Source.of_file(path, row.filename), said

    def _forget_uploads(self) -> None:
        shutil.rmtree(self._folder / UPLOADS, ignore_errors=True)

    def write(self, plan: Plan, base: Base, said: dict[str, Any]) -> Prepared:
        write_plan(self._folder, plan)
        return Prepared(plan, base, DataFound((), said), (), self.fetched)


def prepare_evaluation(means: Means, order: Order, folder: Path) -> Prepared:
    """Raises CannotTrain, Interrupted, StorageUnavailable, SQLAlchemyError or OSError."""
    spec = EvaluationSpec.model_validate_json(order.claim.spec)
    gathering = Gathering(means, order, folder, "file")
    found = [gathering.subject(name, "models") for name in spec.models]
    recipes = {_measured_as(subject, base, spec.metric) for subject, base in found}
    if len(recipes) > 1:
        message = "the models are measured on examples of different forms"
        raise CannotTrain("invalid_request", message, "models")
    recipe = recipes.pop()
    said = gathering.examples(recipe, spec.file, spec.max_examples)
    plan = Plan(
        recipe=_story(EVALUATE, found[0][0]),
        model="",
        hyperparameters=_PLAIN,
        generate=said["examples"],
        subjects=[subject for subject, _ in found],
        measured_as=recipe,
        metric=spec.metric,
        goes_up=spec.goes_up,
    )
    return gathering.write(plan, found[0][1], said)


def prepare_optimization(means: Means, order: Order, folder: Path) -> Prepared:
    """Raises as ``prepare_evaluation`` does."""
    claim, name = order.claim, order.claim.model or ""
    spec = OptimizationSpec.model_validate_json(claim.spec)
    gathering = Gathering(means, order, folder, "evaluation_file")
    subject, base = gathering.subject(name, "model")
    held_out = json.loads(claim.detail).get("held_out")
    if spec.evaluation_file is not None:
        recipe = _measured_as(subject, base, spec.metric)
        said = gathering.examples(recipe, spec.evaluation_file, spec.max_examples)
    elif held_out is not None:
        recipe = _measured_as(subject, base, spec.metric)
        source = FineTuningSpec.model_validate(held_out["spec"])
        said = gathering.held_out(source, held_out["job"], spec.max_examples)
    else:
        raise CannotTrain("no_examples", "There is nothing to compare by.", "evaluation_file")
    metric, goes_up = metric_of(recipe, spec.metric)
    plan = Plan(
        recipe=_story(OPTIMIZE, subject),
        model=optimized_name(spec, base.name, claim.tenant_id, claim.job_id),
        base=subject.source,
        base_model=name,
        hyperparameters=_PLAIN,
        generate=said["examples"],
        subjects=[subject],
        measured_as=recipe,
        metric=metric,
        goes_up=goes_up,
        optimization=Optimization(method=spec.method.model_dump(), max_drop=spec.max_drop),
    )
    return gathering.write(plan, base, said)


def _story(story: str, subject: Subject) -> str:
    return f"fake_{story}" if subject.engine == "fake" else story


def _measured_as(subject: Subject, base: Base, metric: str | None) -> str:
    """By which recipe's evaluation; of a classifier that no recipe made, its files say it."""
    model = base.model
    made_by = None if model is None else model.detail.get("recipe")
    known: Sequence[str] = evaluations_of(subject.engine, made_by)
    if len(known) > 1:
        known = [recipe for recipe in known if recipe == _head_of(subject.source)]
    fitting = [recipe for recipe in known if metric is None or metric in METRICS[recipe]]
    if not fitting:
        message = f"{subject.name!r} can't be measured by {metric!r}"
        raise CannotTrain("metric_not_measured", message, "metric")
    return fitting[0]


def _head_of(source: str) -> str:
    try:
        config = json.loads((Path(source) / "config.json").read_bytes())
        names = [str(name) for name in config.get("architectures") or ()]
    except (OSError, ValueError, AttributeError):
        return ""
    words = any(name.endswith("ForTokenClassification") for name in names)
    return "token_classification" if words else "text_classification"
