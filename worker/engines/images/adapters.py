"""LoRA adapters: loaded once beside the weights, switched between microbatches."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from worker.engines.base import EngineFailed
from worker.engines.images.settings import AdapterSettings

_SUFFIX = ".safetensors"


class Adapters:
    """The adapters of one model."""

    def __init__(self, pipeline: Any, offered: dict[str, AdapterSettings], folder: Path) -> None:
        """Loads all of them. Raises EngineFailed ``bad_settings`` or ``model_load_failed``."""
        if offered and find_spec("peft") is None:
            raise EngineFailed("bad_settings", "engine setting 'adapters': peft is not installed")
        self._base_weights = {name: adapter.weight for name, adapter in offered.items()}
        # Names of modules hold no dots, so an adapter's own name can't be used.
        self._inner = {name: f"adapter_{place}" for place, name in enumerate(offered)}
        self._digests = {
            name: _load(pipeline, adapter.source, self._inner[name], name, folder)
            for name, adapter in offered.items()
        }
        self._active: tuple[str, float] | None = None
        if offered:
            pipeline.disable_lora()

    @property
    def names(self) -> list[str]:
        return sorted(self._inner)

    def digest(self, name: str) -> str | None:
        """sha256 of the adapter's file; None when it came from a hub."""
        return self._digests[name]

    def use(self, pipeline: Any, chosen: tuple[str, float] | None) -> None:
        """Puts the adapter (name, weight of the request), or none, in force.

        The components are shared, so any of the model's pipelines will do.
        """
        if chosen == self._active:
            return
        if chosen is None:
            pipeline.disable_lora()
        else:
            name, weight = chosen
            pipeline.enable_lora()
            pipeline.set_adapters([self._inner[name]], [weight * self._base_weights[name]])
        self._active = chosen


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
