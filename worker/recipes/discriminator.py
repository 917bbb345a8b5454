"""The network that tells a GAN's pictures from real ones. It is trained, and never delivered."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.engines.samplers.generator import SMALLEST_SIDE

_NARROWEST = 32
_GROUP = 4
"""Pictures among which the discriminator sees how much they vary."""


def widths_for(side: int) -> list[int]:
    """Channels from 4 pixels a side on, for each doubling: 64 at most for small pictures."""
    blocks = max(1, math.ceil(math.log2(side / SMALLEST_SIDE)))
    widest = 32 * 2 ** min(blocks, 3)
    return [max(_NARROWEST, widest >> max(0, block - 1)) for block in range(blocks + 1)]


class Discriminator(nn.Module):
    """How real a picture of a class looks, as a logit. It has no running statistics."""

    def __init__(self, side: int, channels: int, classes: int) -> None:
        super().__init__()
        widths = list(reversed(widths_for(side)))
        self.side = SMALLEST_SIDE * 2 ** (len(widths) - 1)
        self.begin = nn.Conv2d(channels, widths[0], 3, padding=1)
        pairs = pairwise(widths)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "first": nn.Conv2d(before, before, 3, padding=1),
                    "second": nn.Conv2d(before, after, 3, padding=1),
                    "skip": nn.Conv2d(before, after, 1, bias=False),
                }
            )
            for before, after in pairs
        )
        last = widths[-1]
        self.last = nn.Conv2d(last + 1, last, 3, padding=1)
        self.wide = nn.Linear(last * SMALLEST_SIDE**2, last)
        self.end = nn.Linear(last, 1)
        self.classes = nn.Embedding(classes, last) if classes else None

    def forward(self, pictures: Tensor, classes: Tensor) -> Tensor:
        """(n, channels, side, side) of -1..1 and (n,) class numbers to (n,) logits."""
        if pictures.shape[-1] != self.side:
            pictures = functional.interpolate(pictures, size=(self.side,) * 2, mode="bilinear")
        features = self.begin(pictures)
        for block in self.blocks:
            features = _halved(block, features)
        features = torch.cat([features, _variety(features)], dim=1)
        features = functional.leaky_relu(self.last(features), 0.2)
        features = functional.leaky_relu(self.wide(features.flatten(1)), 0.2)
        logits: Tensor = self.end(features)[:, 0]
        if self.classes is not None:
            # How well the picture fits its class: projection, as a sum of products.
            fits = (features * self.classes(classes)).sum(1) / math.sqrt(features.shape[1])
            logits = logits + fits
        return logits


def _halved(block: Any, features: Tensor) -> Tensor:
    inner = block["first"](functional.leaky_relu(features, 0.2))
    inner = functional.avg_pool2d(block["second"](functional.leaky_relu(inner, 0.2)), 2)
    straight = functional.avg_pool2d(block["skip"](features), 2)
    return (inner + straight) / math.sqrt(2)


def _variety(features: Tensor) -> Tensor:
    """(n, 1, s, s): how much each picture's group varies, so that drawing one thing is seen."""
    number = len(features)
    size = min(_GROUP, number)
    groups = -(-number // size)
    padded = (
        torch.cat([features, features[: groups * size - number]]) if number % size else features
    )
    spread = padded.view(size, groups, -1).var(0, unbiased=False).add(1e-8).sqrt().mean(1)
    return spread.repeat(size)[:number, None, None, None].expand(-1, 1, *features.shape[2:])
