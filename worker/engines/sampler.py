"""The sampler engine: pictures of named classes, by the small models that tenants train here.

It is the image engine (``worker/engines/image.py``) over another kind of model: the same rows,
microbatches, files and answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from shared.errors import InvalidRequest, UnsupportedParameter
from worker.engines.base import EngineFailed, OnProgress
from worker.engines.image import ImageEngine
from worker.engines.images.adapters import Adapters
from worker.engines.images.batches import Room
from worker.engines.images.loading import LoadedPipelines, quieten, weight_bytes
from worker.engines.images.pipelines import Task
from worker.engines.images.prompts import PromptMeter
from worker.engines.images.requests import Offer, default_size
from worker.engines.images.results import Studio
from worker.engines.images.rows import ImageRow
from worker.engines.images.settings import ImageSettings
from worker.engines.loading import (
    EngineSettings,
    choose_device,
    choose_dtype,
    dtype_name,
    read_settings,
)
from worker.engines.protocol import Load, Row
from worker.engines.samplers.drawing import Sampler
from worker.engines.samplers.loading import load_sampler, sampler_fingerprint
from worker.engines.samplers.manifest import Manifest
from worker.engines.samplers.pipelines import SamplerPipeline, sampler_abilities

_FLOAT32 = "float32"
"""The default: these models are small, and were trained in it."""


class SamplerSettings(EngineSettings):
    """The sampler engine's options in the model catalog."""

    default_steps: int | None = Field(default=None, ge=1)
    """Of a request that names none; what the model was delivered with."""
    default_guidance: float | None = Field(default=None, ge=0, le=50)
    max_steps: int = Field(default=150, ge=1)
    max_side: int = Field(default=2_048, ge=8)
    """Of a picture that is scaled up."""
    max_n: int = Field(default=10, ge=1)
    microbatch: int | None = Field(default=None, ge=1, le=1024)
    """Most pictures in one forward pass; as many as have four megapixels together, at most 32."""


@dataclass(frozen=True, slots=True)
class SamplerOffer(Offer):
    """What the image engine checks, and what else such a model can't do."""

    manifest: Manifest

    def read(self, shard: int, epoch: int, row: Row) -> ImageRow:
        """Raises PressrunError, with ``param``, for a row that can't be run."""
        read = Offer.read(self, shard, epoch, row)
        self.manifest.class_of(read.prompt)
        if read.group.width != read.group.height:
            raise InvalidRequest("this model draws squares only", param="size")
        if read.spec.steps is not None and not self.manifest.takes_steps:
            raise UnsupportedParameter("this model draws in a single step", param="steps")
        return read


def create(load: Load, progress: OnProgress) -> ImageEngine:
    """Loads a model. Raises EngineFailed ``model_load_failed`` or ``bad_settings``."""
    if not load.spool:
        raise EngineFailed("bad_settings", "the sampler engine needs a spool to leave images in")
    settings = read_settings(SamplerSettings, load.settings)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype or _FLOAT32, device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    quieten()
    progress(0.1, f"reading {load.source}")
    sampler = _open(load.source, device, dtype)
    loaded = _loaded(sampler, device, dtype)
    offer = _offer(sampler.manifest, settings, loaded)
    progress(0.95, "ready")
    return ImageEngine(
        loaded=loaded,
        offer=offer,
        studio=Studio(
            model=load.model,
            spool=load.spool,
            public_url=load.public_url,
            origin={
                "model": load.model,
                "fingerprint": loaded.fingerprint,
                "kind": sampler.manifest.kind,
            },
            adapter_digests={},
        ),
        adapters=Adapters(loaded.base, {}, Path(load.source)),
        room=Room(settings.microbatch),
        detail=_detail(sampler.manifest, loaded, offer),
    )


def _open(source: str, device: torch.device, dtype: torch.dtype) -> Sampler:
    try:
        return load_sampler(Path(source), device, dtype)
    except Exception as error:
        message = f"{source} cannot be loaded: {type(error).__name__}: {error}"
        raise EngineFailed("model_load_failed", message[:2000]) from error


def _loaded(sampler: Sampler, device: torch.device, dtype: torch.dtype) -> LoadedPipelines:
    pipeline = SamplerPipeline(sampler)
    return LoadedPipelines(
        pipelines={Task.TEXT_TO_IMAGE: pipeline},
        abilities={Task.TEXT_TO_IMAGE: sampler_abilities(sampler.manifest)},
        device=device,
        dtype=dtype,
        fingerprint=sampler_fingerprint(sampler, dtype),
        weight_bytes=weight_bytes(pipeline),
        offload="none",
    )


def _offer(manifest: Manifest, settings: SamplerSettings, loaded: LoadedPipelines) -> SamplerOffer:
    given = settings.model_dump(exclude_none=True)
    if not manifest.takes_steps:
        given |= {"max_steps": 1, "default_steps": 1}
    limits = read_settings(ImageSettings, {**given, "microbatch": None})
    return SamplerOffer(
        abilities=loaded.abilities,
        settings=limits,
        own_size=default_size((manifest.image_size, manifest.image_size), limits),
        size_multiple=1,
        adapters=[],
        meter=PromptMeter(loaded.base),
        manifest=manifest,
    )


def _detail(manifest: Manifest, loaded: LoadedPipelines, offer: Offer) -> dict[str, Any]:
    width, height = offer.own_size
    return {
        "device": str(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "kind": manifest.kind,
        "classes": manifest.classes[:100],
        "default_size": f"{width}x{height}",
        "default_steps": manifest.steps,
        "fingerprint": loaded.fingerprint,
    }
