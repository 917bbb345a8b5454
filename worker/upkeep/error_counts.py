"""How often each error stands in the lines of a batch's error file, counted as they pass."""

from __future__ import annotations

from collections import Counter

import msgspec

MOST_CODES = 50
"""That are told apart; codes are the plant's and its engines', and few."""
LONGEST_CODE = 64
OTHER = "other"


class _Error(msgspec.Struct):
    code: str | None = None


class _Body(msgspec.Struct):
    error: _Error | None = None


class _Response(msgspec.Struct):
    body: _Body | None = None


class _Line(msgspec.Struct):
    """As ``worker.outputs`` writes it."""

    response: _Response | None = None
    error: _Error | None = None

    @property
    def code(self) -> str:
        found = self.error or (self.response and self.response.body and self.response.body.error)
        return (found.code if found else None) or OTHER


class ErrorCounts:
    """Takes the bytes of whole lines in any pieces. Holds one line."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._decoder = msgspec.json.Decoder(_Line)
        self._rest = b""

    @property
    def counts(self) -> dict[str, int]:
        """By code, the commonest first."""
        return dict(self._counts.most_common())

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.add(self._code(line))

    def add(self, code: str, times: int = 1) -> None:
        known = code in self._counts or len(self._counts) < MOST_CODES
        self._counts[code[:LONGEST_CODE] if known else OTHER] += times

    def _code(self, line: bytes) -> str:
        try:
            return self._decoder.decode(line).code
        except (msgspec.DecodeError, UnicodeDecodeError):  # an engine's own shape of error
            return OTHER
