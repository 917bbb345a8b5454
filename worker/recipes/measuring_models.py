"""Models as their engines serve them, to be measured: weights, dtype, adapter and all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from worker.engines.adapter_files import BadAdapter
from worker.engines.adapters import Adapters
from worker.engines.base import EngineFailed
from worker.engines.classifying import auto_class
from worker.engines.loading import EngineSettings, LoadedModel, load_model
from worker.engines.scheduling import model_class
from worker.recipes.shape import RecipeError
from worker.tuning.messages import Subject

CLASSES: dict[str, Callable[[Any], Any]] = {"text": model_class, "classifier": auto_class}
"""By engine: which class of transformers a configuration is loaded with."""


class Asked:
    """A loaded subject. It is called, and generates, as the model of transformers does; each row
    with the subject's adapter, if it has one."""

    def __init__(self, subject: Subject, tick: Callable[[], object]) -> None:
        """``tick`` is called before each forward pass, and may raise to end it all."""
        self.name, self._tick = subject.name, tick
        self.loaded = _loaded(subject)
        self._folder = subject.adapter
        loaded = self.loaded
        self._adapters = Adapters(loaded.model, loaded.device, loaded.dtype)
        if self._folder:
            self._load_adapter(subject)
        if loaded.tokenizer.pad_token_id is None:
            loaded.tokenizer.pad_token = loaded.tokenizer.eos_token

    @property
    def config(self) -> Any:
        return self.loaded.config

    @property
    def generation_config(self) -> Any:
        return self.loaded.model.generation_config

    def get_base_model(self) -> Any:
        """For those who look at the signature of ``forward``."""
        return self.loaded.model

    @torch.no_grad()
    def __call__(self, **inputs: Any) -> Any:
        with self._row_by_row(inputs):
            return self.loaded.model(**inputs)

    @torch.no_grad()
    def generate(self, **options: Any) -> Any:
        model: Any = self.loaded.model
        with self._row_by_row(options):
            return model.generate(**options)

    @contextmanager
    def _row_by_row(self, inputs: dict[str, Any]) -> Iterator[None]:
        self._tick()
        rows = int(inputs["input_ids"].shape[0])
        with self._adapters.serving([self._folder] * rows):
            yield

    def _load_adapter(self, subject: Subject) -> None:
        try:
            self._adapters.load(subject.adapter)
        except BadAdapter as error:
            message = f"the adapter of '{subject.name}' can't be used: {error}"
            raise RecipeError("bad_base_adapter", message[:500]) from error


def _loaded(subject: Subject) -> LoadedModel:
    known = {n: v for n, v in subject.settings.items() if n in ("device", "dtype")}
    try:
        return load_model(
            CLASSES[subject.engine],
            subject.source,
            EngineSettings(**known),
            lambda fraction, detail: None,
        )
    except EngineFailed as error:
        raise RecipeError(error.code, f"'{subject.name}' can't be loaded") from error
