"""Counts of one upload: examples, labels, lengths, repetitions, in a few bytes an example."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from worker.tuning.data.example import Example, Refused
from worker.tuning.data.limits import DataLimits

CHARACTERS_PER_TOKEN = 4
"""Of English prose; nobody has tokenised the text yet."""


def approximate_tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


@dataclass(slots=True)
class Tally:
    """What is known of the good examples of one file."""

    limits: DataLimits
    examples: int = 0
    characters: int = 0
    tokens: int = 0
    """Approximate."""
    longest: int = 0
    """Approximate tokens of the longest example."""
    long_over: int = 0
    """Approximate tokens above which an example is long; 0: none is."""
    long_examples: int = 0
    loose_tags: int = 0
    """Sentences with a tag that continues nothing."""
    form: str = ""
    fields: tuple[str, ...] = ()
    """Of its first example."""
    labels: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    """Examples by the power of two that bounds their tokens."""
    sides: Counter[int] = field(default_factory=Counter)
    """Pictures by the power of two that bounds their shorter side."""
    _hashes: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, example: Example, picture: bytes | None, size: tuple[int, int] | None) -> None:
        """Raises Refused when the example has one label too many for the whole file."""
        fresh = set(example.labels) - self.labels.keys()
        if len(self.labels) + len(fresh) > self.limits.labels:
            raise Refused("too_many_labels", f"there are over {self.limits.labels} labels", "label")
        if not self.examples:
            self.form, self.fields = example.form, example.fields
        tokens = approximate_tokens(example.characters)
        self.examples += 1
        self.characters += example.characters
        self.tokens += tokens
        self.longest = max(self.longest, tokens)
        self.long_examples += bool(self.long_over and tokens > self.long_over)
        self.loose_tags += bool(example.loose_tags)
        self.labels.update(example.labels)
        self.lengths[_bound(tokens)] += 1
        if size is not None:
            self.sides[_bound(min(size))] += 1
        self._hashes.append(_hash(example, picture))

    @property
    def repeated(self) -> int:
        """Examples that were there before, word for word."""
        return len(self._hashes) - len(np.unique(self._numbers()))

    def shared_with(self, other: Tally) -> int:
        """Examples that the other file has too."""
        return int(np.isin(self._numbers(), other._numbers()).sum())

    def _numbers(self) -> NDArray[np.uint64]:
        return np.frombuffer(self._hashes, dtype=np.uint64) if self._hashes else np.zeros(0, "u8")


def histogram(counts: Counter[int]) -> list[dict[str, int]]:
    """``[{"up_to": 64, "examples": 12}, …]``, the smallest first."""
    return [{"up_to": bound, "examples": counts[bound]} for bound in sorted(counts)]


def _bound(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()


def _hash(example: Example, picture: bytes | None) -> int:
    digest = blake2b(json.dumps(example.row, sort_keys=True).encode(), digest_size=8)
    if picture is not None:
        digest.update(picture)
    return int.from_bytes(digest.digest(), "little")


def order_of(labels: Sequence[str] | Counter[str]) -> list[str]:
    """Labels as plans and models number them."""
    return sorted(labels)
