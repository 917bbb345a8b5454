"""What the image engine tells of itself once it is ready."""

from __future__ import annotations

import math
from typing import Any

import torch

from worker.engines.images.batches import Room
from worker.engines.images.lanes import Lanes
from worker.engines.images.loading import LoadedPipelines, spare_memory
from worker.engines.images.requests import Offer
from worker.engines.loading import dtype_name
from worker.engines.memory import free_bytes


def describe(loaded: LoadedPipelines, offer: Offer, room: Room, lanes: Lanes) -> dict[str, Any]:
    """Decides how the VAE decodes, too, which goes by all the rest."""
    width, height = offer.own_size
    pixels = width * height
    with torch.no_grad():
        slicing, tiling = spare_memory(
            loaded.base,
            offer.settings,
            largest_pixels=offer.settings.max_pixels,
            together_pixels=room.images(pixels) * pixels,
            free=free_bytes(loaded.device),
        )
    return {
        "device": str(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "scheduler": type(loaded.base.scheduler).__name__,
        "pipeline": type(loaded.base).__name__,
        "tasks": [str(task) for task in loaded.pipelines],
        "microbatch": math.ceil(room.images(pixels) / lanes.count),
        "lanes": lanes.count,
        "default_size": f"{width}x{height}",
        "offload": loaded.offload,
        "vae_slicing": slicing,
        "vae_tiling": tiling,
        "adapters": offer.adapters,
        "fingerprint": loaded.fingerprint,
    }
