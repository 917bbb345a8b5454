"""Text of running choices as it becomes certain, for rows that are read along.

What is told is always a beginning of the text that the finished choice will have: characters whose
bytes are not all there are held back, and so is what may turn out to begin a stop sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from worker.engines.protocol import Piece, RowDelta
from worker.engines.spelling import Spellings
from worker.engines.text_rows import Choice, TextRow
from worker.engines.vocabulary import Vocabulary

PAUSE_SECONDS = 0.05
"""Between two looks at the texts: what rows say meanwhile goes as one piece each."""
CONTEXT_TOKENS = 16
"""Decoded again with each look, since the text of a token depends on those before it."""
LONGEST_WINDOW_TOKENS = 64
_INCOMPLETE = "\ufffd"


class ChoiceText:
    """How far the text of one choice was told."""

    def __init__(self, choice: Choice, vocabulary: Vocabulary, spellings: Spellings) -> None:
        self._choice = choice
        self._vocabulary = vocabulary
        self._spellings = spellings
        self._begin()

    def _begin(self) -> None:
        self._stream = self._choice.stream
        self._seen = 0
        self._window_at = 0
        self._window_said = 0
        self._held_back = ""
        self._told = 0
        self._telling = self._choice.telling(self._spellings)

    def fresh(self) -> Piece | None:
        """What can be told since the last call."""
        choice = self._choice
        if choice.stream is not self._stream:
            self._begin()  # it was started again, out of memory: readers compare
        if choice.finish_reason is not None:
            return self._piece(choice.text[self._told :])
        if len(choice.generated) == self._seen:
            return None
        self._seen = len(choice.generated)
        text = self._held_back + self._decoded(choice.generated)
        held = longest_beginning(text, choice.row.stops)
        self._held_back = text[len(text) - held :]
        return self._piece(text[: len(text) - held])

    def _decoded(self, tokens: Sequence[int]) -> str:
        """The certain characters that came since the last call."""
        text = self._vocabulary.decode(tokens[self._window_at :])
        certain = text.rstrip(_INCOMPLETE)
        new = certain[self._window_said :]
        self._window_said = max(self._window_said, len(certain))
        if len(tokens) - self._window_at > LONGEST_WINDOW_TOKENS and certain == text:
            self._narrow(tokens, text)
        return new

    def _narrow(self, tokens: Sequence[int], text: str) -> None:
        """Lets the window begin later, at a token that begins a character: else bytes of the
        characters after it could be taken for broken ones, too."""
        for start in range(len(tokens) - CONTEXT_TOKENS, len(tokens) - CONTEXT_TOKENS - 4, -1):
            tail = self._vocabulary.decode(tokens[start:])
            if tail and text.endswith(tail):
                self._window_at, self._window_said = start, len(tail)
                return

    def _piece(self, text: str) -> Piece | None:
        if not text:
            return None
        at = self._told
        self._told += len(text)
        prompt = len(self._choice.prompt.text) if self._choice.row.echo else 0
        if self._telling is None:
            return Piece(self._choice.index, prompt + at, text)
        first, logprobs = self._telling.fresh(self._choice.generated, self._told)
        return Piece(self._choice.index, prompt + at, text, first, logprobs)


class Deltas:
    """The rows that are read along; the others are unknown here, and cost nothing."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        spellings: Spellings,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._vocabulary = vocabulary
        self._spellings = spellings
        self._clock = clock
        self._pause_seconds = pause_seconds
        self._rows: dict[TextRow, list[ChoiceText]] = {}
        self._next_at = 0.0

    def add(self, row: TextRow) -> None:
        self._rows[row] = [
            ChoiceText(choice, self._vocabulary, self._spellings) for choice in row.choices
        ]

    def forget(self, row: TextRow) -> None:
        self._rows.pop(row, None)

    def take(self) -> list[RowDelta]:
        """What each row said since the last look; nothing before its time has come."""
        if not self._rows or (now := self._clock()) < self._next_at:
            return []
        self._next_at = now + self._pause_seconds
        told: list[RowDelta] = []
        for row, texts in self._rows.items():
            pieces = [piece for text in texts if (piece := text.fresh()) is not None]
            if pieces:
                told.append(RowDelta(row.shard, row.epoch, row.index, pieces))
        return told


def longest_beginning(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may begin one of ``stops``, all of which are
    known not to be in it."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest
