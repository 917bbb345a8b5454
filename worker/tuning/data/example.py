"""What a reader yields for each piece of an upload: an example, or why it is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shared.lifecycle import BadLine

MAX_MESSAGE_CHARACTERS = 500
MAX_PARAM_CHARACTERS = 100
METADATA = "metadata"
"""A field of lines of JSON that says where they come from; nothing is learned from it."""


@dataclass(slots=True)
class Example:
    """One row in the form that recipes read (see ``worker.tuning.data.materialise``)."""

    row: dict[str, Any]
    form: str
    """Which of its recipe's formats it came in: ``chat``, ``prompt_completion``, …"""
    fields: tuple[str, ...] = ()
    """Names of the fields or columns as they were uploaded."""
    characters: int = 0
    """Of its texts."""
    labels: tuple[str, ...] = ()
    """A classifier's label, the tags of a sentence, the class of a picture."""
    line: int | None = None
    """Where it began, 1-based; None for a member of a ZIP."""
    member: str | None = None
    """Its name in a ZIP."""
    loose_tags: int = 0
    """Tags ``I-X`` that nothing before them began."""
    picture: Callable[[], bytes] | None = None
    """Its encoded picture, read when it is called. Raises Refused."""


Item = Example | BadLine


class Refused(Exception):
    """Why a line, a member of a ZIP or a whole file can't be used. ``code`` is stable."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def bad_line(self, line: int | None = None, member: str | None = None) -> BadLine:
        """With the place it happened at; a member is named in the sentence and as ``param``."""
        if member is None:
            return BadLine(self.code, self.message, line, self.param)
        return BadLine(self.code, f"{shown(member)}: {self.message}", line, shown(member))


def shown(name: str) -> str:
    """A name that somebody else chose, fit for a sentence."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return plain if len(plain) <= MAX_PARAM_CHARACTERS else plain[: MAX_PARAM_CHARACTERS - 1] + "…"


def clipped(error: BadLine) -> BadLine:
    """Names of fields may be as long as a line, and a thousand bad lines are kept."""
    return replace(
        error,
        message=error.message[:MAX_MESSAGE_CHARACTERS],
        param=error.param and error.param[:MAX_PARAM_CHARACTERS],
    )


def check_fields(
    row: Mapping[str, Any], required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    """Raises Refused for the first field that is missing, or that nobody knows."""
    for field in required:
        if field not in row:
            raise Refused("missing_required_parameter", f"'{field}' is required", field)
    for field in row:
        if field not in required and field not in optional:
            message = f"'{shown(str(field))}' is not a field of this format"
            raise Refused("unsupported_parameter", message, shown(str(field)))


def text_of(value: Any, param: str) -> str:
    """A string with something in it. Raises Refused."""
    if not isinstance(value, str):
        raise Refused("invalid_request", f"'{param}' must be a string", param)
    if not value.strip():
        raise Refused("empty_content", f"'{param}' is empty", param)
    return value


def label_of(value: Any, param: str, most_characters: int) -> str:
    """A label as text: a string, or a whole number. Raises Refused."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused("invalid_label", f"'{param}' must be a string or an integer", param)
    label = str(value).strip()
    if not label:
        raise Refused("empty_content", f"'{param}' is empty", param)
    if len(label) > most_characters or not label.isprintable():
        message = f"'{param}' has 1 to {most_characters} printable characters"
        raise Refused("invalid_label", message, param)
    return label
