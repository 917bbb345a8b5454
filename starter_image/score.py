"""The score: of 100 names, how many pictures are nearest to the icon that was asked for.

Each picture is encoded again, and its latents are compared with those of every training icon.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from starter_image.autoencoder import all_latents, latents_of, mean_absolute_error
from starter_image.dataset import Dataset
from starter_image.plan import SamplingPlan

if TYPE_CHECKING:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

_MICROBATCH = 20


@dataclass(frozen=True)
class Score:
    """What was drawn, and how it did.

    ``pictures`` is uint8 of shape (names, 3, pixels, pixels); ``nearest`` names the icon each one
    is nearest to; ``error`` is the autoencoder's mean absolute error over all icons, in [0, 1].
    """

    names: list[str]
    nearest: list[str]
    pictures: torch.Tensor
    error: float

    @property
    def hits(self) -> int:
        """How many pictures are nearest to the icon of their own name."""
        return sum(map(str.__eq__, self.names, self.nearest))


def measure(pipeline: StableDiffusionPipeline, dataset: Dataset, plan: SamplingPlan) -> Score:
    """Draws the plan's names, each from its own seed, and scores the pictures."""
    names = chosen(dataset.names, plan)
    pictures = draw(pipeline, names, plan)
    known = all_latents(pipeline.vae, dataset).flatten(1)
    drawn = latents_of(pipeline.vae, pictures.float().div(127.5).sub(1)).flatten(1)
    nearest = torch.cdist(drawn, known).argmin(1).tolist()
    error = mean_absolute_error(pipeline.vae, dataset)
    return Score(names, [dataset.names[index] for index in nearest], pictures, error)


def chosen(names: list[str], plan: SamplingPlan) -> list[str]:
    """The names that are scored: drawn with the plan's seed, the same every time."""
    return random.Random(plan.seed).sample(names, min(plan.count, len(names)))  # noqa: S311


def draw(pipeline: StableDiffusionPipeline, prompts: list[str], plan: SamplingPlan) -> torch.Tensor:
    """One picture a prompt, uint8 of shape (prompts, 3, pixels, pixels); prompt n has seed n."""
    parts = []
    for start in range(0, len(prompts), _MICROBATCH):
        part = prompts[start : start + _MICROBATCH]
        seeds = range(start, start + len(part))
        pictures = pipeline(
            part,
            num_inference_steps=plan.steps,
            guidance_scale=plan.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images
        parts.append(pictures.mul(255).round().to(torch.uint8))
    return torch.cat(parts)
