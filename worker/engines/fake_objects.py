"""What the fake engine says where an answer is held to a schema: a walk through its grammar, byte
by byte, led by a digest. The same schema and digest give the same JSON."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from shared.errors import InvalidSchema
from shared.specs.formats import UNFINISHED, ResponseFormat

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_BYTES = 4_096
_PLAIN_BYTES = 160
"""After so many, whatever ends something is chosen before all else."""
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_CLOSING = b"}]"
_QUOTE = ord('"')
_LONGEST_WORD = 7


def schema_of(response_format: dict[str, Any] | None) -> str | None:
    """The schema that an answer is held to, of a validated ``response_format``."""
    if response_format is None:
        return None
    return ResponseFormat.model_validate(response_format).grammar


def held_words(schema: str, digest: bytes, choice: int, limit: int | None) -> tuple[str, int, str]:
    """JSON that satisfies ``schema``, its words and why it ends; a word of it ends at a comma."""
    words = re.findall("[^,]+,?|,", fake_object(schema, digest + choice.to_bytes(4)))
    if limit is None or limit >= len(words):
        return "".join(words), len(words), "stop"
    return "".join(words[:limit]), limit, "length"


def refusal_of(schema: str | None, finish_reason: str) -> str | None:
    return UNFINISHED if schema is not None and finish_reason == "length" else None


def fake_object(schema: str, digest: bytes) -> str:
    """JSON that satisfies ``schema``. Raises InvalidSchema where none is found."""
    matcher = _matcher(schema).deep_copy()
    choices = hashlib.shake_128(digest).digest(MOST_BYTES)
    said = bytearray()
    word = 0
    for choice in choices:
        allowed = _allowed(matcher)
        if matcher.is_error():
            break
        if matcher.is_stopped() or (matcher.is_accepting() and len(said) > 1):
            return said.decode()
        byte = _next(allowed, choice, word, ending=len(said) > _PLAIN_BYTES)
        said.append(byte)
        word = word + 1 if byte in _LETTERS else 0
        matcher.consume_token(byte)
    why = "nothing satisfies it" if matcher.is_error() else None
    why = why or f"the fake engine found no answer of {MOST_BYTES} bytes"
    raise _unusable(why)


def _unusable(why: str) -> InvalidSchema:
    return InvalidSchema(f"answers can't be held to this schema: {why}", param="response_format")


def _next(allowed: Sequence[int], choice: int, word: int, *, ending: bool) -> int:
    """One of the ``allowed`` bytes: words of some letters, and no more of anything than needed."""
    letters = [byte for byte in allowed if byte in _LETTERS]
    if bytes(letters) == b"e":  # of a number, which may become too large to be one
        letters = []
    if _QUOTE in allowed and letters and (ending or word > choice % _LONGEST_WORD + 1):
        return _QUOTE
    closing = [] if letters else [byte for byte in allowed if byte in _CLOSING]
    if ending and closing:
        return closing[0]
    plain = [byte for byte in allowed if byte not in b" eE"]
    pool = letters or closing or plain or list(allowed)
    return pool[choice % len(pool)]


def _allowed(matcher: LLMatcher) -> list[int]:
    mask = matcher.compute_bitmask()
    return [byte for byte in range(256) if mask[byte // 8] >> byte % 8 & 1]


@lru_cache(maxsize=64)
def _matcher(schema: str) -> LLMatcher:
    try:
        from worker.engines.matchers import UnusableSchema, matcher_of
    except ImportError as error:
        raise _unusable(f"this fake engine lacks {error.name}") from None
    try:
        return matcher_of(_bytes(), schema)
    except UnusableSchema as error:
        raise _unusable(error.why) from None


@lru_cache(maxsize=1)
def _bytes() -> LLTokenizer:
    from llguidance import LLTokenizer

    return LLTokenizer("byte")
