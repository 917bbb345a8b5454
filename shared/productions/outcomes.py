"""What a line of the output says, and which columns are added to the data's own."""

from __future__ import annotations

from enum import StrEnum

from shared.productions.specs import TemplateHead


class Status(StrEnum):
    """How a line ended."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    """A gate refused every try; ``reason`` begins with the gate's name."""
    FAILED = "failed"
    """The row could not be rendered or generated; ``reason`` begins with its code."""
    NOT_FOUND = "not_found"
    """No document had anything on it; the output is the template's ``not_found``."""


OUTPUT = "output"
STATUS = "status"
CANDIDATE = "candidate"
AUDIENCE = "audience"
MODEL = "model"
REASON = "reason"
SOURCES = "sources"


def output_columns(head: TemplateHead) -> tuple[str, ...]:
    """The columns that come behind the data's own, in order."""
    return (
        OUTPUT,
        STATUS,
        CANDIDATE,
        *([AUDIENCE] if head.audiences is not None else []),
        *([MODEL] if head.models is not None else []),
        REASON,
        *([SOURCES] if head.documents is not None else []),
    )
