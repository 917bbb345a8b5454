"""What the fake engine's slow rows have said so far, for those who read along: words pass with the
time that the row was given, and of a row that is held, the first half is said at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from worker.engines.fake_logprobs import part_of, tokens_of
from worker.engines.fake_responses import prompts_of
from worker.engines.protocol import Piece, Row, RowDelta

Key = tuple[int, int, int]
"""Shard, epoch, index."""


class _Streamed(msgspec.Struct):
    stream: bool | None = None


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    text: str = ""
    message: _Message | None = None
    logprobs: dict[str, Any] | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]


_streamed = msgspec.json.Decoder(_Streamed)
_answer = msgspec.json.Decoder(_Answer)


@dataclass
class _Speech:
    """One row; ``told`` is how much of each choice's text was told, its echo included."""

    texts: list[str]
    logprobs: list[dict[str, Any] | None]
    told: list[int]
    began: float
    seconds: float
    held: bool

    def share(self, now: float) -> float:
        """How much of the text is said, 0 to 1."""
        return 0.5 if self.held else min(1.0, (now - self.began) / self.seconds)


class Speeches:
    """Knows what each row that is read along will say, and what its clock says now."""

    def __init__(self) -> None:
        self._speeches: dict[Key, _Speech] = {}

    @staticmethod
    def wanted(row: Row) -> bool:
        """Whether somebody reads along. Raises msgspec.MsgspecError."""
        return b'"stream"' in row.body and bool(_streamed.decode(row.body).stream)

    def start(self, key: Key, row: Row, answer: bytes, began: float, seconds: float) -> None:
        """The row will say ``answer`` within ``seconds``; 0: it is held for as long as it takes."""
        choices = _answer.decode(answer).choices
        texts = [c.message.content if c.message else c.text for c in choices]
        echoed = [len(prompt) for prompt in prompts_of(row.endpoint, row.body)]
        told = [echoed[place * len(echoed) // len(texts)] if echoed else 0
                for place in range(len(texts))]  # fmt: skip
        held = not seconds
        self._speeches[key] = _Speech(
            texts, [c.logprobs for c in choices], told, began, seconds, held
        )

    def stop(self, shard: int, epoch: int, index: int | None = None) -> None:
        """The row has ended, or with no ``index`` all rows of the shard have."""
        for key in [k for k in self._speeches if k[:2] == (shard, epoch)]:
            if index is None or key[2] == index:
                del self._speeches[key]

    def deltas(self, now: float) -> list[RowDelta]:
        """The words that rows said since the last call, but never the last word."""
        found: list[RowDelta] = []
        for key, speech in self._speeches.items():
            pieces = list(_pieces(speech, now))
            if pieces:
                found.append(RowDelta(*key, pieces))
        return found


def _pieces(speech: _Speech, now: float) -> list[Piece]:
    pieces: list[Piece] = []
    for choice, text in enumerate(speech.texts):
        words = text.split(" ")
        said = " ".join(words[: min(len(words) - 1, int(speech.share(now) * len(words)))])
        at = speech.told[choice]
        if len(said) > at:
            pieces.append(_piece(choice, at, said, speech.logprobs[choice]))
            speech.told[choice] = len(said)
    return pieces


def _piece(choice: int, at: int, said: str, logprobs: dict[str, Any] | None) -> Piece:
    if logprobs is None:
        return Piece(choice, at, said[at:])
    first = len(tokens_of(said[:at]))
    return Piece(choice, at, said[at:], first, part_of(logprobs, first, len(tokens_of(said))))
