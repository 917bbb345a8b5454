"""``/v1/classifications``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.specs.common import InferenceSpec
from shared.specs.embeddings import MAX_INPUTS, NonEmptyText

MAX_SCORES = 1_000


class ClassificationSpec(InferenceSpec):
    """Labels for one text, or for up to 2,048: one for each text, or one for each entity in it,
    whichever the model was made for."""

    input: NonEmptyText | Annotated[list[NonEmptyText], Field(min_length=1, max_length=MAX_INPUTS)]
    top_k: Annotated[int, Field(ge=1, le=MAX_SCORES)] | None = None
    """How many labels of a text are listed with their scores; ten, when left out. Not for models
    that find entities."""

    @property
    def inputs(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else list(self.input)

    @property
    def result_count(self) -> int:
        return len(self.inputs)

    def estimated_input_tokens(self) -> int:
        return sum(len(text) for text in self.inputs) // 4 + len(self.inputs)

    def estimated_output_tokens(self, default: int) -> int:
        return 0
