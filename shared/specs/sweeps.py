"""What may be asked of a sweep: a search for hyperparameters by many trainings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictFloat, StrictInt, model_validator

from shared.specs.parts import MetricName, Part

MAX_TRIALS = 64
MAX_PARALLEL = 16
MAX_DIMENSIONS = 16
MAX_CHOICES = 100

Number = StrictInt | StrictFloat
DimensionName = Annotated[str, Field(pattern=r"^[a-z_]{1,40}(\.[a-z_]{1,40})?$")]


class Dimension(Part):
    """What a trial may choose from: ``choices``, or numbers from ``min`` to ``max``."""

    min: Number | None = None
    max: Number | None = None
    log: bool = False
    """Suggests as many numbers between 1 and 10 as between 10 and 100."""
    step: Number | None = None
    """Only ``min``, ``min`` + ``step`` and so on; of whole numbers 1, when it is left out."""
    choices: Annotated[list[Any], Field(min_length=1, max_length=MAX_CHOICES)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        if self.choices is None:
            if self.min is None or self.max is None:
                raise ValueError("give min and max, or choices")
        elif self.model_fields_set - {"choices"}:
            raise ValueError("choices go without min, max, log and step")
        return self


class Sweep(Part):
    """Trains many times, each time with other hyperparameters, and keeps the best model. What is
    not in ``space`` is the same in every trial."""

    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)]
    space: Annotated[dict[DimensionName, Dimension], Field(min_length=1, max_length=MAX_DIMENSIONS)]
    """By the name of a hyperparameter, or ``lora.`` and one of the adapter's."""
    metric: MetricName = "valid_loss"
    """What the recipe measures in its evaluations."""
    direction: Literal["minimize", "maximize"] = "minimize"
    pruning: bool = True
    """Stops a trial that is worse than half of the finished ones were after as many evaluations."""
    parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = 1
    """Trials at a time, as far as there are workers. More of them know less of one another."""
