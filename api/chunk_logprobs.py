"""How likely tokens were, as it is told piece by piece: each token once, in order.

``logprobs`` is a choice's member of that name, or the part of it that belongs to a stretch of text.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

Logprobs = Mapping[str, Any]


class Diverged(Exception):
    """What comes is not a continuation of what was said."""


class Tokens:
    """How far the tokens of one choice were told."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def fresh(self, first: int, logprobs: Logprobs | None) -> dict[str, Any] | None:
        """What is new in ``logprobs``, before whose tokens there are ``first`` others; None where
        nothing is, or some between were left out: then only the whole can go on. Raises
        Diverged."""
        if logprobs is None or first > len(self._told):
            return None
        names = _names(logprobs)
        known = self._told[first : first + len(names)]
        if names[: len(known)] != known:
            raise Diverged
        if len(known) == len(names):
            return None
        self._told += names[len(known) :]
        return {
            name: None if part is None else part[len(known) :] for name, part in logprobs.items()
        }


class Beyond:
    """Leaves out the tokens of a text that end within a beginning of it."""

    def __init__(self, characters: int) -> None:
        self._from = characters
        self._read = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def of(self, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Of the next tokens, in a chat completion's shape, those that end beyond it."""
        return [entry for entry in entries if self._ends(entry) > self._from]

    def _ends(self, entry: Mapping[str, Any]) -> int:
        self._read += len(self._decoder.decode(bytes(entry["bytes"])))
        return self._read + bool(self._decoder.getstate()[0])


def _names(logprobs: Logprobs) -> list[str]:
    if "tokens" in logprobs:
        names: list[str] = logprobs["tokens"]
        return names
    return [entry["token"] for entry in logprobs["content"]]
