"""What a word is, for gates and for telling near-duplicates: the same everywhere."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Scripts that are written without spaces: each of their signs counts as a word.
_SIGNS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_WORD = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+(?:['’\-][^\W{_SIGNS}]+)*")
_LETTER = rf"[^\W{_SIGNS}]"
_IS_LETTER = re.compile(_LETTER)
_SPACE = re.compile(r"\s+")


def words_of(text: str) -> list[str]:
    """The words in order: ``don't`` and ``well-known`` are one, a Chinese sign is one."""
    return _WORD.findall(text)


def holds(text: str, phrase: str) -> bool:
    """Whether a phrase is in a text, both as ``plain`` makes them; whole words, where the phrase
    begins and ends with letters: ``art`` is not in ``party``."""
    at = text.find(phrase)
    if at < 0:
        return False
    end = at + len(phrase)
    if not (_one_word(text[at - 1 : at], phrase[0]) or _one_word(phrase[-1], text[end : end + 1])):
        return True
    before = rf"(?<!{_LETTER})" if _IS_LETTER.match(phrase[0]) else ""
    after = rf"(?!{_LETTER})" if _IS_LETTER.match(phrase[-1]) else ""
    return re.search(before + re.escape(phrase) + after, text) is not None


def _one_word(left: str, right: str) -> bool:
    return bool(_IS_LETTER.match(left) and _IS_LETTER.match(right))


def plain(text: str) -> str:
    """How texts are compared: no matter which case, width, or how much space."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def shingles(text: str, size: int) -> frozenset[str]:
    """All runs of ``size`` words; a text of fewer words is one run. Never empty."""
    words: Sequence[str] = words_of(plain(text))
    if len(words) <= size:
        return frozenset({" ".join(words)})
    return frozenset(" ".join(words[at : at + size]) for at in range(len(words) - size + 1))


def jaccard(one: str, other: str, size: int) -> float:
    """How much two texts share, from 0 to 1: common shingles by all shingles."""
    left, right = shingles(one, size), shingles(other, size)
    return len(left & right) / len(left | right)
