"""The network that a GAN's pictures come from; the recipe trains it, the engine draws with it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SMALLEST_SIDE = 4
"""Where the generator begins; each block doubles it."""
_CLASS_WIDTH = 64


class GeneratorShape(BaseModel):
    """Sizes of a generator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(ge=8, le=1024)
    channels: int = Field(ge=1, le=3)
    classes: int = Field(ge=0)
    """0 for an unconditional one."""
    latent: int = Field(default=64, ge=1, le=4096)
    """Random numbers that a picture is made of."""
    widths: list[int] = Field(min_length=1, max_length=9)
    """Channels after the beginning and after each block."""


class Block(nn.Module):
    """Twice the side; a residual block whose norms are shifted and scaled by the condition."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1)
        self.to_first = nn.Linear(condition, 2 * before)
        self.to_second = nn.Linear(condition, 2 * after)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """(n, before, s, s) and (n, condition) to (n, after, 2s, 2s)."""
        inner = functional.leaky_relu(_styled(features, self.to_first(condition)), 0.2)
        inner = self.first(functional.interpolate(inner, scale_factor=2, mode="nearest"))
        inner = functional.leaky_relu(_styled(inner, self.to_second(condition)), 0.2)
        wider = functional.interpolate(features, scale_factor=2, mode="nearest")
        mixed: Tensor = self.second(inner) + self.skip(wider)
        return mixed


def _styled(features: Tensor, style: Tensor) -> Tensor:
    """Normed over each picture's own places and channels: no statistics to keep between calls."""
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    return functional.group_norm(features, 1) * (1 + scale) + shift


class Generator(nn.Module):
    """Noise and a class to a picture."""

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        self.shape = shape
        self.classes = nn.Embedding(shape.classes, _CLASS_WIDTH) if shape.classes else None
        width = shape.latent + (_CLASS_WIDTH if shape.classes else 0)
        first = shape.widths[0]
        self.begin = nn.Linear(width, first * SMALLEST_SIDE**2)
        self.blocks = nn.ModuleList(
            Block(before, after, width) for before, after in pairwise(shape.widths)
        )
        self.end = nn.Conv2d(shape.widths[-1], shape.channels, 3, padding=1)

    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        """(n, latent) of normal noise and (n,) class numbers to (n, channels, side, side), -1..1.

        Class numbers are ignored by a generator that knows none.
        """
        condition = noise
        if self.classes is not None:
            condition = torch.cat([noise, self.classes(classes)], dim=1)
        features = self.begin(condition).view(len(noise), -1, SMALLEST_SIDE, SMALLEST_SIDE)
        for block in self.blocks:
            features = block(features, condition)
        drawn = self.end(functional.leaky_relu(features, 0.2))
        side = self.shape.image_size
        if drawn.shape[-1] != side:
            drawn = functional.interpolate(drawn, size=(side, side), mode="area")
        return torch.tanh(drawn)


def save_generator(generator: Generator, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(generator.shape.model_dump_json(indent=2) + "\n")
    save_model(generator, str(folder / WEIGHTS))


def load_generator(folder: Path) -> Generator:
    """Raises OSError, pydantic.ValidationError, or RuntimeError for weights that don't fit."""
    shape = GeneratorShape.model_validate_json((folder / CONFIG).read_bytes())
    generator = Generator(shape)
    load_model(generator, str(folder / WEIGHTS))
    return generator
