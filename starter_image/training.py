"""The loop that both trainings share: steps, moving average, checkpoints, progress.

A step's random numbers come from the seed and the step's number alone, so a training that was
stopped and resumed takes the very steps that an uninterrupted one takes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from starter_image import checkpoints
from starter_image.checkpoints import Checkpoint, CheckpointError, Position
from starter_image.progress import Progress, Report

LossOf = Callable[[int, int], torch.Tensor]
"""The loss of a step (from 0) in a lane (from 0): a scalar with gradients. Called on a thread."""

LANES = 2
"""Each step's rows are split over this many threads, which share the cores.

Lanes that meet once a step lose little to other programs of the machine; cores that share every
operation wait for one another hundreds of times a step. It is a constant, and not the number of
cores, so that the steps are the same everywhere.
"""

CHECKPOINT_SECONDS = 120.0
_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Schedule:
    """How a training goes: the rate rises for ``warmup`` steps, holds, and falls at the end.

    It falls to 1 %, as half a cosine, in the last ``falling`` share of the steps. Before that a
    training may be given more or fewer steps, since nothing that was done would be different.
    """

    steps: int
    seed: int
    peak_rate: float
    warmup: int = 100
    average_decay: float = 0.999
    """Of the moving average of the weights, which is what a training delivers."""
    falling: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of step ``step`` (from 0)."""
        rise = min(1.0, (step + 1) / self.warmup)
        fallen = max(0, step - self.holds_until) / (self.steps - self.holds_until)
        left = 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))
        return self.peak_rate * rise * (0.01 + 0.99 * left)

    @property
    def holds_until(self) -> int:
        """The step from which the rate falls."""
        return round(self.steps * (1 - self.falling))


@dataclass(frozen=True)
class Outcome:
    """A finished training: its loss at every step, and the seconds that all steps took."""

    losses: torch.Tensor
    seconds: float


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Several trainings of the same weights, one after the other, as one."""
    losses = torch.cat([outcome.losses for outcome in outcomes])
    return Outcome(losses, sum(outcome.seconds for outcome in outcomes))


def generator_of(seed: int, step: int, lane: int = 0) -> torch.Generator:
    """The random numbers of one step in one lane, the same in every process."""
    return torch.Generator().manual_seed((seed << 32) + step * LANES + lane)


def rows_of(count: int, size: int, seed: int, step: int) -> torch.Tensor:
    """The ``size`` of ``count`` rows that step ``step`` takes: each once before any comes again."""
    first = step * size
    picked: list[int] = []
    while len(picked) < size:
        epoch, offset = divmod(first + len(picked), count)
        order = torch.randperm(count, generator=generator_of(seed + 1, epoch))
        picked += order[offset : offset + size - len(picked)].tolist()
    return torch.tensor(picked)


def _lanes() -> Executor:
    threads = max(1, (os.cpu_count() or 1) // LANES)
    return ThreadPoolExecutor(LANES, initializer=torch.set_num_threads, initargs=(threads,))


class Training:
    """Trains ``module`` in place on ``loss_of``; delivers its averaged weights.

    ``fingerprint`` is what must be equal for a checkpoint to be continued.
    """

    def __init__(
        self, name: str, module: nn.Module, loss_of: LossOf, schedule: Schedule, fingerprint: str
    ) -> None:
        self._name, self._module, self._loss_of, self._schedule = name, module, loss_of, schedule
        self._fingerprint = f"{fingerprint} {replace(schedule, steps=0)}"
        self._weights = dict(module.named_parameters())
        self._average = {name: p.detach().clone() for name, p in self._weights.items()}
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), lr=schedule.peak_rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self._losses = torch.zeros(schedule.steps)
        self._step = 0
        self._seconds = 0.0

    def run(self, path: Path, report: Report, stop_at: int | None = None) -> Outcome:
        """Continues from the checkpoint ``path``, if there is one, to the last step.

        Leaves the averaged weights in the module. ``stop_at`` ends earlier, at a checkpoint, with
        the weights as they are. Raises CheckpointError when ``path`` is of another training.
        """
        saved = checkpoints.load(path)
        if saved is not None:
            self._restore(saved, path)
            report(f"{self._name}: {self._step} of {self._schedule.steps} steps were done")
        last = self._schedule.steps if stop_at is None else stop_at
        if self._step < last:
            self._take_steps(last, path, report)
        if stop_at is None:
            self._deliver()
        return Outcome(self._losses, self._seconds)

    def _take_steps(self, last: int, path: Path, report: Report) -> None:
        progress = Progress(self._name, self._schedule.steps, report)
        self._module.train()
        stored = began = time.monotonic()
        before = self._seconds
        with _lanes() as lanes:
            while self._step < last:
                loss = self._take_step(lanes)
                now = time.monotonic()
                self._seconds = before + now - began
                progress.add(self._step, loss)
                if now - stored >= CHECKPOINT_SECONDS or self._step == last:
                    checkpoints.save(path, self._state())
                    stored = now

    def _take_step(self, lanes: Executor) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.rate(self._step)
        losses, gradients = zip(*lanes.map(self._gradients, range(LANES)), strict=True)
        for weight, *parts in zip(self._weights.values(), *gradients, strict=True):
            weight.grad = torch.stack(parts).mean(0)
        loss = float(sum(losses)) / LANES
        nn.utils.clip_grad_norm_(self._weights.values(), _MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._losses[self._step] = loss
        self._step += 1
        self._follow()
        return loss

    def _gradients(self, lane: int) -> tuple[float, tuple[torch.Tensor, ...]]:
        loss = self._loss_of(self._step, lane)
        return loss.item(), torch.autograd.grad(loss, list(self._weights.values()))

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self._schedule.average_decay, (1 + self._step) / (10 + self._step))
        averages = [self._average[name] for name in self._weights]
        torch._foreach_lerp_(averages, list(self._weights.values()), 1 - decay)

    def _state(self) -> Checkpoint:
        tensors = {"losses": self._losses}
        for name, weight in self._weights.items():
            tensors[f"weight.{name}"] = weight.detach()
            tensors[f"average.{name}"] = self._average[name]
            for key, value in self._optimizer.state[weight].items():
                tensors[f"{key}.{name}"] = value
        position = Position(self._step, self._schedule.steps, self._seconds, self._fingerprint)
        return Checkpoint(position, tensors)

    @torch.no_grad()
    def _restore(self, saved: Checkpoint, path: Path) -> None:
        position, tensors = saved.position, saved.tensors
        if not self._continues(position):
            raise CheckpointError(f"{path} is of another training; delete it to begin anew")
        self._step, self._seconds = position.step, position.seconds
        self._losses[: self._step] = tensors["losses"][: self._step]
        for name, weight in self._weights.items():
            weight.copy_(tensors[f"weight.{name}"])
            self._average[name] = tensors[f"average.{name}"]
            self._optimizer.state[weight] = {
                key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }

    def _continues(self, position: Position) -> bool:
        if position.fingerprint != self._fingerprint:
            return False
        before = replace(self._schedule, steps=position.steps)
        return before == self._schedule or position.step <= min(
            before.holds_until, self._schedule.holds_until
        )

    @torch.no_grad()
    def _deliver(self) -> None:
        for name, weight in self._weights.items():
            weight.copy_(self._average[name])
        self._module.eval()
