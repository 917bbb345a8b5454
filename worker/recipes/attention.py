"""Which of torch's attentions a forward pass of a training takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from worker.recipes.context import Context

SHORT = 128
"""Positions up to which the plain attention's steps are quicker in bf16 on CPUs: torch's fused one
has a slow way back there. For 16 lines of 73 positions plain takes half the time, at 256 more."""


@contextmanager
def computing(context: Context, positions: int) -> Iterator[None]:
    """The training's precision and, for lines of so many positions, the quickest attention."""
    with context.autocast():
        if not is_short(context, positions):
            yield
            return
        with sdpa_kernel(SDPBackend.MATH):
            yield


def is_short(context: Context, positions: int) -> bool:
    on_cpu = context.device.type == "cpu" and context.dtype == torch.bfloat16
    return on_cpu and positions <= SHORT and torch.is_grad_enabled()
