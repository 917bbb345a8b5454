"""Pure decisions: what a training is told, and what the model it makes is called and made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.db.models import Model, ModelFile
from shared.lifecycle.working import NewModel
from shared.models_catalog import DEFAULT_ENDPOINTS, DEFAULT_POOL, DEFAULT_POOLS
from shared.specs.fine_tuning import FineTuningSpec, seed_of
from worker.tuning.messages import Plan, Started

FAKE = "fake"
ID_LENGTH = 8
_TUNED, _CHECKPOINT = "ft:", "ckpt-step-"
_PARTS = 4
"""Of a tuned model's name: base, tenant, suffix, id."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a training starts from."""

    name: str
    """As it was asked for; the recipe's own name when it starts from nothing."""
    model: Model | None = None
    source: str = ""
    """A local directory or a hub id; of the model below, when ``name`` is an adapter."""
    adapter_source: str = ""
    """A local directory, when ``name`` is an adapter."""
    parents: Sequence[str] = ()
    """It, the model it was tuned from, and so on."""

    @property
    def below(self) -> str:
        """The whole model that an adapter made of this is loaded onto."""
        if self.model is not None and self.model.adapter and self.model.base_model:
            return self.model.base_model
        return self.name


@dataclass(frozen=True, slots=True)
class DataFound:
    """The data of a training, as it lies in its folder."""

    labels: Sequence[str] = ()
    said: Mapping[str, Any] = field(default_factory=dict)
    """For the model's card: counts and SHA-256 of the files."""


def model_name(spec: FineTuningSpec, tenant_id: str, job_id: str) -> str:
    """``ft:{base}:{tenant}:{suffix}:{id8}``; of a tuned model, the base is its own base."""
    base, _, _ = parts_of(spec.model)
    return f"ft:{base}:{tenant_id}:{spec.suffix or ''}:{job_id[-ID_LENGTH:]}"


def parts_of(name: str) -> tuple[str, str, str]:
    """Base, tenant and suffix of a tuned model's or a checkpoint's name, whose base may hold
    colons; any other name is a base."""
    if not name.startswith(_TUNED):
        return name, "", ""
    whole, _, last = name.removeprefix(_TUNED).rpartition(":")
    if not last.startswith(_CHECKPOINT):
        whole = name.removeprefix(_TUNED)
    parts = whole.rsplit(":", _PARTS - 1)
    return (parts[0], parts[1], parts[2]) if len(parts) == _PARTS else (name, "", "")


def checkpoint_name(name: str, step: int) -> str:
    return f"{name}:{_CHECKPOINT}{step}"


def make_plan(
    spec: FineTuningSpec, *, name: str, job_id: str, base: Base, data: DataFound, resume: str
) -> Plan:
    options = spec.options
    stopping = spec.early_stopping
    every = spec.evaluation.every_steps
    return Plan(
        recipe=FAKE if base.model is not None and base.model.engine == FAKE else spec.recipe,
        model=name,
        base=base.source,
        base_adapter=base.adapter_source,
        base_model=base.name,
        adapter=options.adapter,
        lora=options.lora.model_dump(),
        hyperparameters=options.hyperparameters.model_dump(),
        early_stopping=None if stopping is None else stopping.model_dump(),
        checkpoint_steps=spec.checkpoints.every_steps,
        checkpoint_minutes=spec.checkpoints.every_minutes,
        evaluate_steps=None if every == "auto" else every,
        generate=spec.evaluation.generate,
        trackers=[tracker.model_dump() for tracker in spec.integrations],
        seed=seed_of(spec, job_id),
        processes=spec.processes,
        resume=resume,
        labels=list(data.labels),
    )


def digest_of(files: Sequence[ModelFile]) -> str:
    """One SHA-256 for all of a model's files."""
    lines = "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files, key=_path))
    return hashlib.sha256(lines.encode()).hexdigest()


def new_model(
    name: str,
    *,
    plan: Plan,
    base: Base,
    started: Started,
    files: Sequence[ModelFile],
    detail: Mapping[str, Any],
) -> NewModel:
    """What is offered by ``name``: served as its base is, or as its engine usually is."""
    same_engine = base.model is not None and base.model.engine == started.engine
    pool = DEFAULT_POOLS.get(started.engine, DEFAULT_POOL)
    endpoints = DEFAULT_ENDPOINTS.get(started.engine, [])
    if base.model is not None and same_engine:
        pool, endpoints = base.model.pool, base.model.endpoints
    said = {
        "recipe": plan.recipe,
        "base_model": base.name,
        "parents": list(base.parents),
        "seed": plan.seed,
        "adapter": "lora" if started.adapter else "none",
        "hyperparameters": started.hyperparameters,
        "digest": digest_of(files),
        **detail,
    }
    return NewModel(
        id=name,
        pool=pool,
        engine=started.engine,
        base_model=base.below if started.adapter else (base.name if base.model else None),
        adapter=started.adapter,
        settings=dict(started.settings),
        endpoints=list(endpoints),
        files=list(files),
        bytes=sum(file.bytes for file in files),
        detail=said,
        owned_by=parts_of(name)[1],
    )


def _path(file: ModelFile) -> str:
    return file.path
