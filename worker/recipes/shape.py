"""What a recipe is, and what it is given.

A recipe is made with a ``Context``, sets up, says what is trained, and tells the story of its
training as one loop over ``loop.batches()``. All else (steps, gradients over processes, schedules,
evaluation, checkpoints, reports) is done around it by ``worker.recipes.run`` and ``loop``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from worker.recipes.context import Context
    from worker.recipes.loop import Loop


class RecipeError(Exception):
    """A training cannot begin or go on. ``code`` is stable, ``message`` is for the tenant.

    ``blame``: ``data`` and ``request`` fail the job, ``engine`` is ours and is tried again.
    """

    def __init__(
        self, code: str, message: str, blame: str = "engine", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.blame, self.param = code, message, blame, param


@dataclass(frozen=True, slots=True)
class Adam:
    """Of one optimizer (AdamW). ``rate`` multiplies the training's learning rate."""

    rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(slots=True)
class Trained:
    """What a recipe trains. Checkpoints keep, of every module, the parameters that require a
    gradient and all persistent buffers; a frozen base is not kept again."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, list[nn.Parameter]]
    """By name; ``{"model": […]}`` when there is one. A GAN has two."""
    examples: int
    """Rows of the training split: batches hold numbers below it."""
    kept: dict[str, nn.Module] = field(default_factory=dict)
    """Modules that nothing trains but that change: a moving average. Kept whole."""
    adam: dict[str, Adam] = field(default_factory=dict)
    """By optimizer; AdamW's usual numbers when left out."""
    lengths: Sequence[int] | None = None
    """Of every example: the rows of a step are sorted by it before they are cut into microbatches,
    which saves padding."""
    best_metric: str | None = "valid_loss"
    """Of ``evaluate``: the weights that were best by it are delivered. None: the last ones."""
    best_mode: Literal["min", "max"] = "min"


@dataclass(frozen=True, slots=True)
class Batch:
    """One optimizer step of one process."""

    step: int
    """From 1."""
    epoch: int
    """From 0: of the first row."""
    microbatches: list[list[int]]
    """Row numbers of this process; as many microbatches, and as many rows in each, on all."""
    rows: list[int]
    """Of all processes: the whole step."""


class Recipe(Protocol):
    """A fine-tuning procedure."""

    engine: str
    """That serves its checkpoints; known after ``setup``, as the next two."""
    adapter: bool
    settings: dict[str, Any]
    detail: dict[str, Any]
    """For ``Started``: ``parameters``, ``trainable``, …"""

    def __init__(self, context: Context) -> None: ...

    def setup(self) -> None:
        """Loads model and data. Raises RecipeError."""

    def trained(self) -> Trained: ...

    def train(self, loop: Loop) -> None:
        """``for batch in loop.batches(): … loop.backward(loss) … loop.update()``."""

    def evaluate(self) -> dict[str, float]:
        """On the validation split, on every process; ``context.total`` adds over processes. Names
        in snake case, ``valid_loss`` first."""

    def save_checkpoint(self, folder: Path) -> None:
        """Writes the servable model: safetensors and JSON. First process only."""

    def export(self, folder: Path) -> None:
        """The delivered model; usually ``save_checkpoint``. First process only."""

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        """The larger evaluation: numbers to compare. Pictures and samples go to
        ``context.files``; Markdown for report.md to ``context.sections``. First process only."""
