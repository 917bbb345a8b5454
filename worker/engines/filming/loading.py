"""A video model from safetensors: the pipelines that its weights serve."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from worker.engines.base import EngineFailed, OnProgress
from worker.engines.filming.families import NEED_FTFY, Family, family_of
from worker.engines.filming.settings import VideoSettings
from worker.engines.images.index import INDEX, check_index
from worker.engines.images.loading import (
    fetch,
    pipeline_fingerprint,
    place,
    quieten,
    weight_bytes,
)
from worker.engines.loading import choose_device, choose_dtype, dtype_name
from worker.engines.memory import free_bytes

_OFFLOAD_ROOM = 1.5
"""Free memory over weights that a pipeline needs to stay on a GPU."""


@dataclass(frozen=True, slots=True)
class LoadedVideoModel:
    """One model's pipelines over the same components."""

    family: Family
    text: Any | None
    """Makes a video from a text; None when the weights only continue pictures."""
    image: Any | None
    """Continues a picture; None when they can't."""
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    weight_bytes: int
    offload: str

    @property
    def base(self) -> Any:
        return self.image if self.text is None else self.text


def load_video_model(
    source: str, settings: VideoSettings, progress: OnProgress
) -> LoadedVideoModel:
    """Loads ``source``, a directory or a hub id. Only safetensors, never remote code, and only
    the pipelines of ``families``.

    Raises EngineFailed ``model_load_failed`` or ``bad_settings``.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    quieten()
    progress(0.05, f"reading {source}")
    try:
        folder = fetch(source)
        check_index(folder)
        name, family = _family(folder)
        progress(0.2, f"loading weights as {dtype_name(dtype)}")
        text, image = _open(folder, name, family, dtype)
    except EngineFailed:
        raise
    except Exception as error:
        message = f"{source} cannot be loaded: {type(error).__name__}: {error}"
        raise EngineFailed("model_load_failed", message[:2000]) from error
    progress(0.7, "loaded")
    base: Any = image if text is None else text
    offload = _offload(settings.offload, device, base)
    for pipeline in filter(None, (text, image)):
        pipeline.set_progress_bar_config(disable=True)
    place(base, offload, device)
    if settings.vae_tiling and hasattr(base.vae, "enable_tiling"):
        base.vae.enable_tiling()
    digest = pipeline_fingerprint(base, dtype)
    return LoadedVideoModel(family, text, image, device, dtype, digest, weight_bytes(base), offload)


def parameters(pipeline: Any) -> dict[str, Any]:
    """The defaults of the pipeline's call, by name."""
    signature = inspect.signature(type(pipeline).__call__)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def _family(folder: Path) -> tuple[str, Family]:
    name = str(json.loads((folder / INDEX).read_text()).get("_class_name"))
    family = family_of(name)
    if family is None:
        raise EngineFailed("model_load_failed", f"{name} is no pipeline for videos that is served")
    if name in NEED_FTFY and find_spec("ftfy") is None:
        raise EngineFailed(
            "video_extra_missing", f"{name} needs the package ftfy, of the extra 'video'"
        )
    return name, family


def _open(
    folder: Path, name: str, family: Family, dtype: torch.dtype
) -> tuple[Any | None, Any | None]:
    """(text to video, image to video): both where the weights serve both."""
    import diffusers

    opened = getattr(diffusers, name).from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    if not family.shared or family.image is None:
        return (opened, None) if name == family.text else (None, opened)
    text, image = getattr(diffusers, family.text), getattr(diffusers, family.image)
    return (
        opened if name == family.text else text(**opened.components),
        opened if name == family.image else image(**opened.components),
    )


def _offload(wanted: str, device: torch.device, pipeline: Any) -> str:
    if device.type == "cpu":
        if wanted in ("model", "sequential"):
            raise EngineFailed("bad_settings", "engine setting 'offload': needs a GPU")
        return "none"
    if wanted != "auto":
        return wanted
    fits = weight_bytes(pipeline) * _OFFLOAD_ROOM <= free_bytes(device)
    return "none" if fits else "model"
