"""Inpainting by image-to-image: after each step, what is not to change is put back.

diffusers' own inpainting takes denoisers of four latent channels, or of nine that were trained for
it. For any other the picture outside the mask is kept as the noisy original of the same step,
which is what diffusers does for the former.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from worker.engines.images.rows import WantedImage

_OWN_NOISE = 0x9E37_79B9
"""Set apart from the noise that the pipeline draws from the same seed."""
_CHANGES = 0.5
"""A place of the latents is repainted when half of its pixels are."""


class Blend:
    """Keeps the unmasked parts of a microbatch's pictures while an image-to-image call runs."""

    def __init__(self, pipeline: Any, images: Sequence[WantedImage]) -> None:
        self._pipeline, self._images = pipeline, list(images)
        self._kept: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, timestep: Any, latents: torch.Tensor) -> torch.Tensor:
        """``latents`` after the step of ``timestep``, (images, channels, height, width), with the
        original outside the masks, as noisy as the next step expects it."""
        if self._kept is None:
            self._kept = self._read(latents)
        clean, noise, changes = self._kept
        scheduler = self._pipeline.scheduler
        following = _after(scheduler.timesteps, timestep)
        original = clean
        if following is not None:
            original = scheduler.add_noise(clean, noise, following.expand(len(clean)))
        return torch.where(changes, latents, original.to(latents.dtype))

    def _read(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clean latents and noise of the originals, and where they may change."""
        vae, rows = self._pipeline.vae, [image.row for image in self._images]
        height, width = (side * self._pipeline.vae_scale_factor for side in latents.shape[-2:])
        pixels = self._pipeline.image_processor.preprocess(
            [row.source for row in rows], height=height, width=width
        ).to(latents.device, vae.dtype)
        clean = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
        generators = [
            torch.Generator("cpu").manual_seed(image.seed ^ _OWN_NOISE) for image in self._images
        ]
        noise = torch.stack([torch.randn(clean.shape[1:], generator=g) for g in generators])
        side = (latents.shape[-2], latents.shape[-1])
        masks = [_mask(row.mask, side) for row in rows]
        changes = torch.stack(masks).to(latents.device)
        return clean, noise.to(latents.device, clean.dtype), changes


def _mask(mask: Any, side: tuple[int, int]) -> torch.Tensor:
    """A picture, white where it is to be repainted, as bool (1, height, width) of the latents."""
    import numpy as np

    light = torch.from_numpy(np.array(mask.convert("L"), np.float32) / 255)
    return functional.adaptive_avg_pool2d(light[None], side) >= _CHANGES


def _after(timesteps: torch.Tensor, timestep: Any) -> torch.Tensor | None:
    """The step that follows ``timestep``; None after the last."""
    places = (timesteps == timestep).nonzero()
    last = int(places[-1]) if len(places) else len(timesteps) - 1
    return timesteps[last + 1 : last + 2] if last + 1 < len(timesteps) else None
