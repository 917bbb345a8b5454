"""Pictures of images that are still being made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from worker.engines.images.batches import Group

if TYPE_CHECKING:
    from PIL.Image import Image

_VIDEO_DIMENSIONS = 5


def preview_steps(total: int, previews: int) -> set[int]:
    """After which of ``total`` steps, counted from 1: spread evenly, never after the last."""
    return {
        step
        for number in range(1, previews + 1)
        if 0 < (step := round(number * total / (previews + 1))) < total
    }


@torch.no_grad()
def decode_latents(pipeline: Any, latents: torch.Tensor, group: Group) -> list[Image]:
    """What the VAE sees in the latents of a step, noise and all.

    Raises AttributeError, TypeError or ValueError for a pipeline of an unknown kind.
    """
    vae = pipeline.vae
    if hasattr(pipeline, "_unpack_latents"):
        latents = pipeline._unpack_latents(
            latents, group.height, group.width, pipeline.vae_scale_factor
        )
    decoded = vae.decode(_unscaled(latents.to(vae.dtype), vae.config), return_dict=False)[0]
    if decoded.dim() == _VIDEO_DIMENSIONS:
        decoded = decoded[:, :, 0]
    pictures: list[Image] = pipeline.image_processor.postprocess(decoded, output_type="pil")
    return pictures


def _unscaled(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Latents as the VAE made them: training had shifted and scaled them."""
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    factor = getattr(config, "scaling_factor", None) or 1.0
    if mean is None or deviation is None:
        return latents / factor + (getattr(config, "shift_factor", None) or 0.0)
    shape = (1, -1, *[1] * (latents.dim() - 2))
    spread = torch.tensor(deviation, dtype=latents.dtype, device=latents.device).view(shape)
    middle = torch.tensor(mean, dtype=latents.dtype, device=latents.device).view(shape)
    return latents * spread / factor + middle
