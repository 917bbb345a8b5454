"""LoRA adapters: those of the catalog are loaded with the weights, those of rows when they come;
switched between microbatches."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from worker.engines.base import EngineFailed
from worker.engines.images.settings import AdapterSettings
from worker.engines.images.tuned import TunedAdapters

_SUFFIX = ".safetensors"

Chosen = tuple[str, float]
"""An adapter of the catalog, and its weight in the request."""


class Adapters:
    """The adapters of one model."""

    def __init__(
        self,
        pipeline: Any,
        offered: dict[str, AdapterSettings],
        folder: Path,
        *,
        most_tuned: int = 1,
    ) -> None:
        """Loads all that are ``offered``; beside them stay at most ``most_tuned`` of rows.

        Raises EngineFailed ``bad_settings`` or ``model_load_failed``.
        """
        if offered and find_spec("peft") is None:
            raise EngineFailed("bad_settings", "engine setting 'adapters': peft is not installed")
        self._base_weights = {name: adapter.weight for name, adapter in offered.items()}
        # Names of modules hold no dots, so an adapter's own name can't be used.
        self._inner = {name: f"adapter_{place}" for place, name in enumerate(offered)}
        self._digests = {
            name: _load(pipeline, adapter.source, self._inner[name], name, folder)
            for name, adapter in offered.items()
        }
        self._tuned = TunedAdapters(most_tuned)
        self._active: tuple[Chosen | None, str] | None = (None, "")
        if offered:
            pipeline.disable_lora()

    @property
    def names(self) -> list[str]:
        return sorted(self._inner)

    def digest(self, name: str) -> str | None:
        """sha256 of the adapter's file; None when it came from a hub."""
        return self._digests[name]

    def use(self, pipeline: Any, chosen: Chosen | None, tuned: str = "") -> str:
        """Puts the adapter of the catalog, and the one in the folder ``tuned``, in force, as far
        as there are any; returns the latter's sha256, or "". Raises BadAdapter for it.

        The components are shared, so any of the model's pipelines will do.
        """
        if (chosen, tuned) != self._active:
            self._active = None  # until all of it is done
            self._switch(pipeline, chosen, tuned)
            self._active = chosen, tuned
        return self._tuned[tuned].sha256 if tuned else ""

    def _switch(self, pipeline: Any, chosen: Chosen | None, tuned: str) -> None:
        weights: dict[str, float] = {}
        if tuned:
            weights[self._tuned.load(pipeline, tuned).inner] = 1.0
        if chosen is not None:
            name, weight = chosen
            weights[self._inner[name]] = weight * self._base_weights[name]
        if weights:
            pipeline.enable_lora()
            pipeline.set_adapters(list(weights), list(weights.values()))
        elif self._inner or len(self._tuned):
            pipeline.disable_lora()


def _load(pipeline: Any, source: str, inner: str, name: str, folder: Path) -> str | None:
    file = _file(source, folder)
    where: dict[str, Any] = {"pretrained_model_name_or_path_or_dict": source}
    if file is not None:
        where = {
            "pretrained_model_name_or_path_or_dict": str(file.parent),
            "weight_name": file.name,
            "local_files_only": True,
        }
    try:
        pipeline.load_lora_weights(**where, adapter_name=inner, use_safetensors=True)
        if inner not in {n for names in pipeline.get_list_adapters().values() for n in names}:
            raise ValueError("it holds no weights for this model")
    except Exception as error:
        message = f"adapter '{name}' cannot be loaded: {type(error).__name__}: {error}"
        raise EngineFailed("model_load_failed", message[:2000]) from error
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()


def _file(source: str, folder: Path) -> Path | None:
    """The adapter's file, absolute; None when ``source`` can only be a hub id."""
    path = Path(source) if Path(source).exists() else folder / source
    if path.is_dir():
        found = sorted(path.glob(f"*{_SUFFIX}"))
        if len(found) != 1:
            raise EngineFailed(
                "bad_settings", f"engine setting 'adapters': {source} holds {len(found)} {_SUFFIX}"
            )
        return found[0].absolute()
    if path.is_file():
        if path.suffix != _SUFFIX:
            raise EngineFailed(
                "bad_settings", f"engine setting 'adapters': {source} is not {_SUFFIX}"
            )
        return path.absolute()
    if Path(source).is_absolute() or source.endswith(_SUFFIX):
        raise EngineFailed("bad_settings", f"engine setting 'adapters': there is no {source}")
    return None
