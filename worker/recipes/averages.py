"""A moving average of weights, which draws better than any single step's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class Average:
    """Follows ``module`` after each step; ``self.module`` is the average, for evaluation and
    delivery. It belongs into ``Trained.kept``."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module: Any = copy.deepcopy(module).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def follow(self, module: nn.Module, step: int) -> None:
        """``step`` counts from 1; early ones move the average faster."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1.0 - decay)
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)


def decay_for(steps: int) -> float:
    """Remembers about a twentieth of the training, at most a thousand steps."""
    return max(0.9, min(0.999, 1 - 20 / max(1, steps)))
