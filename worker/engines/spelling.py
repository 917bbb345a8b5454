"""What each generated token adds to a text: its bytes, and where they are in it."""

from __future__ import annotations

import codecs
import json
import re
from array import array
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from worker.engines.vocabulary import Vocabulary

_INCOMPLETE = "\ufffd"
_CONTEXT_TOKENS = 16
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"
_CONTINUES = 0x80, 0xBF
"""The bytes of a character after its first."""
_BYTE_LEVEL, _PIECES, _OTHER = "byte level", "pieces", "other"


class TokenBytes:
    """The bytes of each token, by how the tokenizer writes them down."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer = vocabulary.tokenizer
        added = vocabulary.tokenizer.added_tokens_decoder
        skipped = {token for token, described in added.items() if described.special}
        self._special_ids = vocabulary.special_ids | skipped
        self._way = _way_of(vocabulary.tokenizer)

    def said(self, token: int) -> bytes | None:
        """What it adds to a text: nothing, if it is special. None where that depends on the tokens
        before it."""
        if token in self._special_ids:
            return b""
        return None if self._way == _OTHER else self._spelled(token)

    def named(self, token: int) -> bytes:
        """Its bytes wherever it is, of a special token those of its name."""
        if token in self._special_ids or self._way == _OTHER:
            return self._written(token).encode(errors="replace")
        return self._spelled(token)

    def _written(self, token: int) -> str:
        written: Any = self._tokenizer.convert_ids_to_tokens(token)
        return written if isinstance(written, str) else ""

    def _spelled(self, token: int) -> bytes:
        written = self._written(token)
        if self._way == _BYTE_LEVEL:
            known = _byte_of_letter()
            if all(letter in known for letter in written):
                return bytes(known[letter] for letter in written)
        elif byte := _BYTE.fullmatch(written):
            return bytes([int(byte[1], 16)])
        else:
            written = written.replace(_SPACE, " ")
        return written.encode(errors="replace")


class Spellings:
    """Spells texts in one vocabulary; what it needs for that is read when it is first asked."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    @cached_property
    def token_bytes(self) -> TokenBytes:
        return TokenBytes(self._vocabulary)

    def begin(self) -> Spelling:
        return Spelling(self._vocabulary, self.token_bytes)


class Spelling:
    """Where the tokens of one choice are in its text, followed as they come."""

    def __init__(self, vocabulary: Vocabulary, token_bytes: TokenBytes) -> None:
        self._vocabulary = vocabulary
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._characters = 0
        self._spoken = False
        self.bytes: list[bytes] = []
        """Of each token; together those of the text."""
        self.begins = array("q")
        """How many characters of the text come before each token …"""
        self.ends = array("q")
        """… and how many there are once all that it has a part in are there."""

    def read(self, tokens: Sequence[int]) -> None:
        """Goes on to the end of ``tokens``, which begin with those that were read before."""
        for at in range(len(self.bytes), len(tokens)):
            self._add(self._bytes_at(tokens, at))

    def within(self, text: str, tokens: Sequence[int]) -> int:
        """How many of ``tokens``, all of which were read, have a part in ``text``: what was decoded
        of them, or a beginning of that."""
        if "".join(self._parts).startswith(text):
            count = sum(1 for begin in self.begins if begin < len(text))
            return min(count, len(tokens))
        return self._least(text, tokens)  # bytes that are no text, and were counted in another way

    def _least(self, text: str, tokens: Sequence[int]) -> int:
        low, high = 0, len(tokens)
        while low < high:
            middle = (low + high) // 2
            if self._vocabulary.decode(tokens[:middle]).startswith(text):
                high = middle
            else:
                low = middle + 1
        return low

    def _add(self, raw: bytes) -> None:
        pending = bool(self._decoder.getstate()[0])
        broken = pending and bool(raw) and not _CONTINUES[0] <= raw[0] <= _CONTINUES[1]
        part = self._decoder.decode(raw)
        self._parts.append(part)
        self.bytes.append(raw)
        self.begins.append(self._characters + broken)
        self._characters += len(part)
        self.ends.append(self._characters + bool(self._decoder.getstate()[0]))

    def _bytes_at(self, tokens: Sequence[int], at: int) -> bytes:
        raw = self._token_bytes.said(tokens[at])
        if raw is None:
            return self._difference(tokens, at)
        if raw and not self._spoken:
            self._spoken = True
            if raw.startswith(b" ") and not self._vocabulary.decode([tokens[at]]).startswith(" "):
                return raw[1:]  # some tokenizers leave out the space that a text begins with
        return raw

    def _difference(self, tokens: Sequence[int], at: int) -> bytes:
        start = max(0, at - _CONTEXT_TOKENS)
        before = self._vocabulary.decode(tokens[start:at]).rstrip(_INCOMPLETE)
        after = self._vocabulary.decode(tokens[start : at + 1]).rstrip(_INCOMPLETE)
        return after.removeprefix(before).encode() if after.startswith(before) else b""


def _way_of(tokenizer: PreTrainedTokenizerBase) -> str:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return _OTHER
    decoder: Any = tokenizer.backend_tokenizer.decoder
    described = {} if decoder is None else json.loads(decoder.__getstate__())
    kinds = {part["type"] for part in described.get("decoders", [described]) if part}
    if "ByteLevel" in kinds:
        return _BYTE_LEVEL
    return _PIECES if kinds & {"ByteFallback", "Metaspace"} else _OTHER


@cache
def _byte_of_letter() -> dict[str, int]:
    """The letters in which byte-level vocabularies are written: of a byte that is no printable
    character, one that is beyond the first 256."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): b for n, b in enumerate(others)}
