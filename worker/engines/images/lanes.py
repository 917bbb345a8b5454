"""Lanes: threads that draw side by side, with pipelines of their own over the same weights.

On a CPU an operation of a small model is too short to be shared out: threads then spend their time
waiting for each other, and for seconds where another process wants a core too. So a microbatch is
drawn in parts, each on its share of the threads, which have nothing to wait for but the next step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from worker.engines.images.batches import shares
from worker.engines.images.lockstep import LockStep
from worker.engines.images.rows import WantedImage

Result = TypeVar("Result")

AUTO_LANES = 4
"""Most lanes where the catalog names no number: each reads all weights for itself."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Where one part of a microbatch is drawn."""

    lockstep: LockStep[Any]
    pipeline: Any
    threads: int
    """How many this part may compute on."""


class Lanes:
    """The lanes of one model. A thread that computes begins a pool of threads, so all of the
    engine's computing goes through them."""

    def __init__(self, first: LockStep[Any], count: int, threads: int) -> None:
        """``first`` is the one that has loaded the model; ``threads`` are for all together."""
        self._locksteps = [first, *(LockStep[Any](f"diffusion-{n}") for n in range(1, count))]
        self._threads = threads
        self._pipelines: dict[int, list[Any]] = {}

    def call(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns or raises, done in the first lane while nothing is drawn."""
        return self._locksteps[0].call(work)

    @property
    def count(self) -> int:
        return len(self._locksteps)

    def share_out(
        self, pipeline: Any, images: Sequence[WantedImage]
    ) -> list[tuple[Lane, Sequence[WantedImage]]]:
        """The lanes that draw a microbatch, each with its part of it."""
        parts = shares(images, self.count)
        threads = max(1, self._threads // len(parts))
        own = self._own(pipeline)
        return [
            (Lane(self._locksteps[place], own[place], threads), part)
            for place, part in enumerate(parts)
        ]

    def _own(self, pipeline: Any) -> list[Any]:
        found = self._pipelines.get(id(pipeline))
        if found is None:
            more = [own_pipeline(pipeline) for _ in self._locksteps[1:]]
            found = self._pipelines[id(pipeline)] = [pipeline, *more]
        return found


def lane_count(wanted: int | None, device: torch.device, threads: int) -> int:
    """How many lanes a model gets: on a CPU one for each thread, up to a point."""
    if wanted is not None:
        return wanted
    return min(threads, AUTO_LANES) if device.type == "cpu" else 1


def own_pipeline(pipeline: Any) -> Any:
    """A pipeline that may be called while ``pipeline`` is. They share the components with weights;
    schedulers count steps and tokenizers remember how they were called, so those are copied."""
    own = copy.copy(pipeline)
    for name, component in pipeline.components.items():
        if component is not None and not isinstance(component, torch.nn.Module):
            setattr(own, name, copy.deepcopy(component))
    return own
