"""The shapes of moderations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.objects import Shape


class Moderation(Shape):
    """The verdict on one input. All of OpenAI's categories are listed, and labels of the classifier
    that are none of them beside them."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: Annotated[
        dict[str, list[Literal["text"]]],
        Field(description="Empty for categories that the classifier does not know"),
    ]
    truncated: Annotated[
        bool, Field(description="Only the beginning was read: the text is longer than the model's")
    ]


class Moderations(Shape):
    """Verdicts, one for each input."""

    id: str
    model: str
    results: list[Moderation]
