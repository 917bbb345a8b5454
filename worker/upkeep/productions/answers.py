"""The answers to a production's batch, one after the other in the order of its rows.

A slice's lines stand together in the final files, each slice after the one before it, but within
a slice as its rows ended. So a slice is read at a time: a few hundred lines are held, of however
many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

import msgspec

from shared.db.shards import SliceRecord
from shared.storage.base import Store


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Body(msgspec.Struct):
    error: _Error | None = None


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


class _Message(msgspec.Struct):
    content: str | None = None


class _Token(msgspec.Struct):
    logprob: float


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Weighed(msgspec.Struct):
    logprobs: _Logprobs | None = None


class _WeighedChat(msgspec.Struct):
    choices: list[_Weighed]


class _Chat(msgspec.Struct):
    choices: list[_Choice]


_line = msgspec.json.Decoder(_Line).decode
_body = msgspec.json.Decoder(_Body).decode
_chat = msgspec.json.Decoder(_Chat).decode
_weighed = msgspec.json.Decoder(_WeighedChat).decode

HTTP_ERROR = 400


class Answer(msgspec.Struct, frozen=True):
    """What became of one row: a body, or an error."""

    body: bytes | None
    code: str | None = None
    message: str | None = None

    def json(self) -> Any:
        return msgspec.json.decode(self.body or b"null")

    def chat(self) -> tuple[str, str | None]:
        """The text of a chat completion, and why it ended where it does."""
        choice = _chat(self.body or b"{}").choices[0]
        return choice.message.content or "", choice.finish_reason

    def mean_logprob(self) -> float | None:
        """How likely its model found the text of a chat completion, by token; None where the answer
        does not tell."""
        found = _weighed(self.body or b"{}").choices[0].logprobs
        if found is None or not found.content:
            return None
        return fsum(token.logprob for token in found.content) / len(found.content)


class Answers:
    """Of one batch. ``take`` is called for each of its rows, in their order."""

    def __init__(
        self,
        store: Store,
        slices: Sequence[SliceRecord],
        output_key: str | None,
        errors_key: str | None,
    ) -> None:
        self._store = store
        self._slices = slices
        self._keys = (output_key, errors_key)
        self._read = [0, 0]
        """Bytes of each file."""
        self._loaded = 0
        self._line = 0
        self._held: dict[str, Answer] = {}

    def take(self, custom_id: str) -> Answer | None:
        """The answer to the next row, which is called so; None when its batch ended before it had
        one. Raises what the store raises."""
        self._line += 1
        while (
            self._loaded < len(self._slices) and self._slices[self._loaded].first_line <= self._line
        ):
            self._load(self._slices[self._loaded])
            self._loaded += 1
        return self._held.pop(custom_id, None)

    def _load(self, part: SliceRecord) -> None:
        for place, size in enumerate((part.output_bytes or 0, part.errors_bytes or 0)):
            key, start = self._keys[place], self._read[place]
            self._read[place] = start + size
            if key is None or not size:
                continue
            for text in b"".join(self._store.read(key, start, start + size)).split(b"\n"):
                if not text:
                    continue
                line = _line(text)
                self._held[line.custom_id] = _answer_of(line)


def _answer_of(line: _Line) -> Answer:
    if line.response is None:
        error = line.error or _Error()
        return Answer(None, error.code or "internal_error", error.message)
    body = bytes(line.response.body)
    if line.response.status_code < HTTP_ERROR:
        return Answer(body)
    error = _body(body).error or _Error()
    return Answer(None, error.code or "engine_error", error.message)
