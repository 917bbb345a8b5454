"""Which engine serves a model by name: its own, or its base's with an adapter on top."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from shared.db.models import Model
from worker.engines.protocol import TAKES_ADAPTERS

ModelLookup = Callable[[str], Model | None]
"""Raises SQLAlchemyError when the database can't be asked."""


class LocalFiles(Protocol):
    """Where models of the store are on this machine."""

    def path(self, model: Model) -> Path | None:
        """The model's folder, or None while it has to be fetched first; never blocks."""


@dataclass(frozen=True, slots=True)
class Served:
    """What rows of a model are given to."""

    engine: Model
    """The model whose engine child runs them; its files are on this machine."""
    adapter: str = ""
    """The folder of what goes on top of it."""
    adapter_name: str = ""
    """The name of the model that the two make, for responses."""


class Unservable(Exception):
    """Rows of the model can't be run; ``code`` is theirs. ``passing`` says that another worker, or
    this one later, may well run them."""

    def __init__(self, code: str, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.passing = passing


class Absent(Exception):
    """Files of ``model`` have to be fetched first."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.id)
        self.model = model


def serve(model_id: str, models: ModelLookup, files: LocalFiles) -> Served:
    """Raises Unservable, Absent, or SQLAlchemyError when the models can't be looked up."""
    model = models(model_id)
    if model is None:
        raise Unservable("model_not_found", f"no model named {model_id!r}")
    if not model.adapter:
        return Served(_placed(model, files))
    base = _placed(_base_of(model, models), files)
    return Served(base, _placed(model, files).source, model.id)


def _placed(model: Model, files: LocalFiles) -> Model:
    """The model with a ``source`` on this machine, if the store has its files."""
    if not model.files:
        return model
    folder = files.path(model)
    if folder is None:
        raise Absent(model)
    return replace(model, source=str(folder))


def _base_of(model: Model, models: ModelLookup) -> Model:
    base = models(model.base_model) if model.base_model else None
    if base is None:
        raise Unservable(
            "base_model_not_found",
            f"{model.id!r} is an adapter, and its base model {model.base_model!r} is not there",
        )
    if base.adapter:
        raise Unservable(
            "adapter_unsupported", f"{model.id!r} is an adapter on another adapter, {base.id!r}"
        )
    if base.engine not in TAKES_ADAPTERS or model.engine != base.engine:
        raise Unservable(
            "adapter_unsupported",
            f"{model.id!r} is an adapter for {model.engine}, and {base.id!r} is served by an "
            f"engine of the kind {base.engine}",
        )
    return base
