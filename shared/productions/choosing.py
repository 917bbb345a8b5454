"""Which candidate of an item is kept."""

from __future__ import annotations

from collections.abc import Sequence

from shared.productions.specs import BestOf
from shared.productions.words import words_of


def best(texts: Sequence[str], wanted: BestOf, scores: Sequence[float] | None = None) -> int:
    """The index of the text that is kept; the earlier of two that are as good. ``texts`` is not
    empty; ``scores`` are those of the label, where a classifier decides, and how likely the model
    that wrote the texts found them, where that does."""
    if wanted.model is not None or wanted.asks_model:
        if scores is None or len(scores) != len(texts):
            raise ValueError("a model decides by one score a text")
        return max(range(len(texts)), key=lambda at: (scores[at], -at))
    if wanted.rule == "first":
        return 0
    lengths = [len(words_of(text)) for text in texts]
    match wanted.rule:
        case "longest":
            return max(range(len(texts)), key=lambda at: (lengths[at], -at))
        case "shortest":
            return min(range(len(texts)), key=lambda at: (lengths[at], at))
        case _:
            aim = wanted.words or 0
            return min(range(len(texts)), key=lambda at: (abs(lengths[at] - aim), at))
