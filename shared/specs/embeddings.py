"""``/v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.specs.common import InferenceSpec, Text

MAX_INPUTS = 2_048

NonEmptyText = Annotated[Text, Field(min_length=1)]


class EmbeddingSpec(InferenceSpec):
    """Vectors for one text, or for up to 2,048."""

    input: NonEmptyText | Annotated[list[NonEmptyText], Field(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    truncate: bool = False
    """Read the beginning of a text that is longer than the model takes, instead of refusing it."""

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
