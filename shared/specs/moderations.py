"""``/v1/moderations``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.specs.common import InferenceSpec
from shared.specs.embeddings import MAX_INPUTS, NonEmptyText


class ModerationPart(BaseModel):
    """One part of an input that is given in parts; text only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    type: Literal["text"]
    text: NonEmptyText


def _as_list(asked: Any) -> Any:
    if not isinstance(asked, list):
        return [asked] if isinstance(asked, str) else asked
    if len({isinstance(item, str) for item in asked}) > 1:
        raise ValueError("give either texts or parts, not both")
    if any(isinstance(item, dict) and item.get("type") == "image_url" for item in asked):
        raise ValueError("only texts are moderated here, no pictures")
    return asked


_Texts = Annotated[list[NonEmptyText], Field(min_length=1, max_length=MAX_INPUTS)]
_Parts = Annotated[list[ModerationPart], Field(min_length=1, max_length=MAX_INPUTS)]


class ModerationSpec(InferenceSpec):
    """One text, up to 2,048 of them, or one input in parts; each is judged."""

    model: Annotated[str, Field(max_length=256)] = ""
    """A classifier; empty: the one that is configured to moderate."""
    input: Annotated[
        list[NonEmptyText | ModerationPart],
        Field(min_length=1, max_length=MAX_INPUTS),
        BeforeValidator(_as_list, json_schema_input_type=NonEmptyText | _Texts | _Parts),
    ]

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data

    @property
    def inputs(self) -> list[str]:
        """What is judged, one verdict each: the parts of an input are one text."""
        texts = [item if isinstance(item, str) else item.text for item in self.input]
        return texts if isinstance(self.input[0], str) else ["\n".join(texts)]

    @property
    def result_count(self) -> int:
        return len(self.inputs)

    def estimated_input_tokens(self) -> int:
        return sum(map(len, self.inputs)) // 4 + len(self.inputs)

    def estimated_output_tokens(self, default: int) -> int:
        return 0
