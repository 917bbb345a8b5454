"""A diffusers model from safetensors: one set of components, a pipeline for each task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch

from worker.engines.base import EngineFailed, OnProgress
from worker.engines.images.index import check_index
from worker.engines.images.pipelines import Abilities, Task, abilities
from worker.engines.images.settings import ImageSettings
from worker.engines.loading import choose_device, choose_dtype, dtype_name, fingerprint

_NOT_LINKED = "AutoPipeline can't find"
_OFFLOAD_ROOM = 1.25
"""Free memory over weights that a pipeline needs to stay on a GPU: room for what it computes."""
_DECODER_TENSORS = 4
"""Live tensors of full size and first-block channels while a VAE decodes."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LoadedPipelines:
    """One model's pipelines; their components are shared."""

    pipelines: dict[Task, Any]
    abilities: dict[Task, Abilities]
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    weight_bytes: int
    offload: str

    @property
    def base(self) -> Any:
        """Any of the pipelines: what all share can be asked of it."""
        return next(iter(self.pipelines.values()))


def load_pipelines(source: str, settings: ImageSettings, progress: OnProgress) -> LoadedPipelines:
    """Loads ``source``, a directory or a hub id. Only safetensors, never remote code.

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
        progress(0.2, f"loading weights as {dtype_name(dtype)}")
        pipelines = _tasks(_open(folder, dtype))
        _set_scheduler(pipelines, settings.scheduler)
    except EngineFailed:
        raise
    except Exception as error:
        message = f"{source} cannot be loaded: {type(error).__name__}: {error}"
        raise EngineFailed("model_load_failed", message[:2000]) from error
    progress(0.7, "loaded")
    base = next(iter(pipelines.values()))
    offload = _offload(settings.offload, device, base)
    for pipeline in pipelines.values():
        pipeline.set_progress_bar_config(disable=True)
    place(base, offload, device)
    return LoadedPipelines(
        pipelines=pipelines,
        abilities={task: abilities(pipeline) for task, pipeline in pipelines.items()},
        device=device,
        dtype=dtype,
        fingerprint=pipeline_fingerprint(base, dtype),
        weight_bytes=weight_bytes(base),
        offload=offload,
    )


def quieten() -> None:
    """No progress bars, and no warnings: some quote prompts."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for logging in (of_diffusers, of_transformers):
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def fetch(source: str) -> Path:
    """The model's folder; a hub id is downloaded into the hub's cache first."""
    from diffusers import DiffusionPipeline

    if Path(source).is_dir():
        return Path(source).absolute()
    if Path(source).is_absolute():
        raise EngineFailed("model_load_failed", f"there is no folder {source}")
    return Path(DiffusionPipeline.download(source, use_safetensors=True, trust_remote_code=False))


def _open(folder: Path, dtype: torch.dtype) -> Any:
    """The pipeline of the first task that the model's class has one for."""
    from diffusers import (
        AutoPipelineForImage2Image,
        AutoPipelineForInpainting,
        AutoPipelineForText2Image,
    )

    auto: Any
    for auto in (AutoPipelineForText2Image, AutoPipelineForImage2Image, AutoPipelineForInpainting):
        try:
            return auto.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        except ValueError as error:
            if _NOT_LINKED not in str(error):
                raise
    raise EngineFailed("model_load_failed", f"{folder.name} is no pipeline that makes images")


def _tasks(base: Any) -> dict[Task, Any]:
    """Every task that the model's class and weights serve, over the same components."""
    from diffusers import (
        AutoPipelineForImage2Image,
        AutoPipelineForInpainting,
        AutoPipelineForText2Image,
    )

    found = {}
    for task, auto in (
        (Task.TEXT_TO_IMAGE, AutoPipelineForText2Image),
        (Task.IMAGE_TO_IMAGE, AutoPipelineForImage2Image),
        (Task.INPAINTING, AutoPipelineForInpainting),
    ):
        try:
            found[task] = auto.from_pipe(base)
        except ValueError as error:
            log.info("task_not_served", task=str(task), why=type(error).__name__)
    if _needs_blending(base) and Task.IMAGE_TO_IMAGE in found:
        found[Task.INPAINTING] = found[Task.IMAGE_TO_IMAGE]
    served = {task: found[task] for task in _fitting_tasks(base) if task in found}
    if not served:
        name = type(base).__name__
        raise EngineFailed("model_load_failed", f"{name} serves no task of the image engine")
    return served


def _fitting_tasks(base: Any) -> tuple[Task, ...]:
    """What the denoiser's input channels allow: weights for inpainting do nothing else."""
    taken = getattr(getattr(getattr(base, "unet", None), "config", None), "in_channels", None)
    latent = getattr(getattr(getattr(base, "vae", None), "config", None), "latent_channels", None)
    if taken is None or latent is None or taken == latent:
        return tuple(Task)
    if taken == 2 * latent + 1:
        return (Task.INPAINTING,)
    raise EngineFailed(
        "model_load_failed", f"a denoiser of {taken} channels for latents of {latent} is not served"
    )


def _needs_blending(base: Any) -> bool:
    """Whether diffusers' own inpainting, which knows UNets of 4 and 9 channels, refuses it."""
    unet = getattr(base, "unet", None)
    return unet is not None and unet.config.in_channels not in (4, 9)


def _set_scheduler(pipelines: dict[Task, Any], name: str | None) -> None:
    if name is None:
        return
    import diffusers

    for pipeline in pipelines.values():
        shipped = type(pipeline.scheduler).__name__
        if shipped.startswith("FlowMatch") != name.startswith("FlowMatch"):
            raise EngineFailed(
                "bad_settings", f"engine setting 'scheduler': {name} cannot replace {shipped}"
            )
        pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)


def modules(pipeline: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """The components with weights, by name."""
    for name, component in sorted(pipeline.components.items()):
        if isinstance(component, torch.nn.Module):
            yield name, component


def weight_bytes(pipeline: Any) -> int:
    """Of all components, adapters included."""
    weights = {id(p): p for _, module in modules(pipeline) for p in module.parameters()}
    return sum(parameter.nbytes for parameter in weights.values())


def _offload(wanted: str, device: torch.device, pipeline: Any) -> str:
    if device.type == "cpu":
        if wanted in ("model", "sequential"):
            raise EngineFailed("bad_settings", "engine setting 'offload': needs a GPU")
        return "none"
    if wanted != "auto":
        return wanted
    from worker.engines.memory import free_bytes

    room = free_bytes(device) / _OFFLOAD_ROOM
    if weight_bytes(pipeline) <= room:
        return "none"
    largest = max(sum(p.nbytes for p in module.parameters()) for _, module in modules(pipeline))
    return "model" if largest <= room else "sequential"


def place(pipeline: Any, offload: str, device: torch.device) -> None:
    """Puts the components where they belong, or hooks them so that they come when needed.

    Hooks follow one pipeline's order: with ``offload``, call it again when another one runs.
    """
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)


def spare_memory(
    pipeline: Any, settings: ImageSettings, *, largest_pixels: int, together_pixels: int, free: int
) -> tuple[bool, bool]:
    """Sets and returns whether the VAE decodes (one by one, in tiles).

    ``largest_pixels`` is the largest image allowed, ``together_pixels`` a whole microbatch; unset
    settings go by what decoding them would take of the ``free`` bytes.
    """
    vae = getattr(pipeline, "vae", None)
    channels = getattr(getattr(vae, "config", None), "block_out_channels", None)
    if vae is None or not channels or not hasattr(vae, "enable_slicing"):
        return False, False
    pixel_bytes = _DECODER_TENSORS * int(channels[0]) * int(vae.dtype.itemsize)
    slicing, tiling = settings.vae_slicing, settings.vae_tiling
    if slicing is None:
        slicing = together_pixels * pixel_bytes > free // 2
    if tiling is None:
        tiling = largest_pixels * pixel_bytes > free // 2
    if slicing:
        vae.enable_slicing()
    if tiling:
        vae.enable_tiling()
    return slicing, tiling


def pipeline_fingerprint(pipeline: Any, dtype: torch.dtype) -> str:
    """Like a text model's, over all components and the scheduler."""
    digest = hashlib.sha256(type(pipeline.scheduler).__name__.encode())
    digest.update(repr(sorted(dict(pipeline.scheduler.config).items(), key=str)).encode())
    for name, module in modules(pipeline):
        digest.update(f"{name} {fingerprint(module, dtype)}".encode())
    return f"fp_{digest.hexdigest()[:16]}"
