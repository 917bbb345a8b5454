"""Words, tags and entities: between a text, the pieces a tokenizer makes of it, and its labels.

Tags are BIO: ``B-person`` begins an entity, ``I-person`` goes on with it, ``O`` is outside. A run
of equal tags without such a prefix is an entity too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"
CharacterSpan: TypeAlias = tuple[int, int]

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+(?:['’.&@/_-][^\W{_IDEOGRAPHS}]+)*|\S")
_NO_SPACE_BEFORE = re.compile(r"^(?:[.,;:!?%)\]}’”…]+|['’](?:s|t|d|m|re|ve|ll)|n['’]t)$", re.I)
_NO_SPACE_AFTER = frozenset("([{“‘")


class Entity(NamedTuple):
    """Words ``start`` to ``end``, without the last."""

    start: int
    end: int
    label: str


def words_of(text: str) -> list[CharacterSpan]:
    """Where the words and punctuation marks of a text are. ``Coca-Cola``, ``O'Neill`` and ``U.S``
    are words; scripts without spaces give one word a character."""
    return [match.span() for match in _WORD.finditer(text)]


def joined(words: Sequence[str]) -> tuple[str, list[CharacterSpan]]:
    """The words as one would write them, and where they are: no space before a full stop."""
    text, spans = "", []
    for word in words:
        glued = not text or text[-1] in _NO_SPACE_AFTER or _NO_SPACE_BEFORE.match(word)
        text += word if glued else f" {word}"
        spans.append((len(text) - len(word), len(text)))
    return text, spans


def first_pieces(
    words: Sequence[CharacterSpan], pieces: Sequence[CharacterSpan]
) -> list[int | None]:
    """Index of each word's first piece; None for a word that none is of: it was cut off, or the
    tokenizer knows none of its characters. Both are in order of the text; empty pieces (special
    tokens) belong to no word. A piece may be the first of several words."""
    found: list[int | None] = []
    at = 0
    for start, end in words:
        while at < len(pieces) and (pieces[at][1] <= start or pieces[at][0] == pieces[at][1]):
            at += 1
        found.append(at if at < len(pieces) and pieces[at][0] < end else None)
    return found


def as_bio(tags: Sequence[str]) -> list[str]:
    """Tags with every entity begun by ``B-``: an ``I-`` that continues nothing becomes one."""
    strict: list[str] = []
    for tag in tags:
        before = strict[-1] if strict else OUTSIDE
        orphan = tag.startswith("I-") and before not in (f"B-{tag[2:]}", tag)
        strict.append(f"B-{tag[2:]}" if orphan else tag)
    return strict


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags spell, strictly: an ``I-`` that continues nothing is none."""
    found: list[Entity] = []
    before = OUTSIDE
    for place, tag in enumerate(tags):
        prefix, label = _split(tag)
        if _continues(before, tag):
            found[-1] = found[-1]._replace(end=place + 1)
        elif prefix != "I" and tag != OUTSIDE:
            found.append(Entity(place, place + 1, label))
        before = tag if found and found[-1].end == place + 1 else OUTSIDE
    return found


def _split(tag: str) -> tuple[str, str]:
    prefix, dash, label = tag.partition("-")
    return (prefix, label) if dash and prefix in ("B", "I") and label else ("", tag)


def _continues(before: str, tag: str) -> bool:
    prefix, label = _split(tag)
    if prefix == "I":
        return before in (f"B-{label}", tag)
    return not prefix and tag == before != OUTSIDE


class TagReader:
    """The most likely tags that spell entities: an ``I-`` follows its ``B-`` or ``I-`` only."""

    def __init__(self, labels: Sequence[str]) -> None:
        """``labels`` are a model's, in the order of its outputs."""
        self._labels = tuple(labels)
        known = set(labels)
        bound = [tag.startswith("I-") and f"B-{tag[2:]}" in known for tag in labels]
        held = list(zip(labels, bound, strict=True))
        allowed = [
            [not is_bound or before in (f"B-{tag[2:]}", tag) for tag, is_bound in held]
            for before in labels
        ]
        self._moves = np.where(np.array(allowed), 0.0, -np.inf)
        self._starts = np.where(np.array(bound), -np.inf, 0.0)

    def read(self, log_probabilities: NDArray[np.float32]) -> list[int]:
        """(words, labels) to a label's number for each word."""
        if not len(log_probabilities):
            return []
        best = self._starts + log_probabilities[0]
        steps = []
        for row in log_probabilities[1:]:
            ways = best[:, None] + self._moves
            steps.append(ways.argmax(axis=0))
            best = ways.max(axis=0) + row
        path = [int(best.argmax())]
        for came_from in reversed(steps):
            path.append(int(came_from[path[-1]]))
        return path[::-1]

    def tags(self, log_probabilities: NDArray[np.float32]) -> list[str]:
        """Like ``read``, by name."""
        return [self._labels[number] for number in self.read(log_probabilities)]
