"""How often each error stands in the lines of a batch's error file, counted as they pass."""

from __future__ import annotations

from collections import Counter

import msgspec

MOST_CODES = 50
"""That are told apart; codes are the plant's and its engines', and few."""
LONGEST_CODE = 64
OTHER = "other"


LONGEST_MESSAGE = 300


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Body(msgspec.Struct):
    error: _Error | None = None


class _Response(msgspec.Struct):
    body: _Body | None = None


class _Line(msgspec.Struct):
    """As ``worker.outputs`` writes it."""

    response: _Response | None = None
    error: _Error | None = None

    @property
    def why(self) -> _Error:
        found = self.error or (self.response and self.response.body and self.response.body.error)
        return found or _Error()


class ErrorCounts:
    """Takes the bytes of whole lines in any pieces. Holds one line."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._messages: dict[str, str] = {}
        self._decoder = msgspec.json.Decoder(_Line)
        self._rest = b""

    @property
    def counts(self) -> dict[str, int]:
        """By code, the commonest first."""
        return dict(self._counts.most_common())

    @property
    def commonest_message(self) -> str | None:
        """The first message that came with the commonest code."""
        if not self._counts:
            return None
        code = max(self._counts, key=lambda code: (self._counts[code], code))
        return self._messages.get(code)

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            why = self._why(line)
            self.add(why.code or OTHER, message=why.message)

    def add(self, code: str, times: int = 1, message: str | None = None) -> None:
        known = code in self._counts or len(self._counts) < MOST_CODES
        counted = code[:LONGEST_CODE] if known else OTHER
        self._counts[counted] += times
        if message and counted not in self._messages:
            self._messages[counted] = _plain(message)

    def _why(self, line: bytes) -> _Error:
        try:
            return self._decoder.decode(line).why
        except (msgspec.DecodeError, UnicodeDecodeError):  # an engine's own shape of error
            return _Error()


def _plain(message: str) -> str:
    """Without what Postgres can't look for members beside: NULs, halves of surrogates."""
    return "".join(c if c.isprintable() else " " for c in message[:LONGEST_MESSAGE])
