"""What is known of a fine-tuning's data once it was read: counts, warnings, and all bad lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

from shared.lifecycle import BadLine
from shared.specs.fine_tuning import RecipeName

SHOWN_LABELS = 100
"""The most frequent ones: a job's row is written once a second, and read a hundred on a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """The verdict; the data may be trained on when ``bad_lines`` is 0."""

    recipe: RecipeName
    errors: Sequence[BadLine]
    """The first ones, in the order of the files."""
    bad_lines: int
    """All of them."""
    examples: int = 0
    """That would be trained on: what is held out for validation is taken off."""
    validation_examples: int = 0
    held_out: bool = False
    """Whether the validation examples come out of the training file."""
    warnings: Sequence[str] = ()
    """Sentences for the tenant; none of them stops the training."""
    format: str = ""
    validation_format: str = ""
    fields: Sequence[str] = ()
    """Names of the first example's fields or columns."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Examples of each label in the training file, sorted by label; for tags, tokens."""
    characters: int = 0
    """Of all texts of the training file."""
    tokens: int = 0
    """Approximate, at four characters a token, of the training file."""
    longest_tokens: int = 0
    lengths: Sequence[Mapping[str, int]] = ()
    """Histogram of tokens."""
    sides: Sequence[Mapping[str, int]] = ()
    """Histogram of the shorter sides of pictures, in pixels."""
    bytes: int = 0
    """Of the uploads."""
    digest: str = ""
    """SHA-256 over the bytes of the training file, then of the validation file."""

    def found(self) -> dict[str, Any]:
        """What the job shows of its data, as JSON."""
        frequent = nlargest(SHOWN_LABELS, self.labels.items(), key=lambda item: item[1])
        return {
            "format": self.format,
            "validation_format": self.validation_format or None,
            "fields": list(self.fields),
            "examples": self.examples,
            "validation_examples": self.validation_examples,
            "held_out": self.held_out,
            "labels": dict(sorted(frequent)),
            "different_labels": len(self.labels),
            "characters": self.characters,
            "approximate_tokens": self.tokens,
            "longest_tokens": self.longest_tokens,
            "lengths": [dict(each) for each in self.lengths],
            "sides": [dict(each) for each in self.sides],
            "warnings": list(self.warnings),
            "bytes": self.bytes,
            "sha256": self.digest,
        }
