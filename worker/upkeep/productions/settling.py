"""The end of a round: near-duplicates go, the best of each item is chosen, and what failed its
gates is to be tried again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Protocol

from shared.productions.choosing import best
from shared.productions.gates import NEAR_DUPLICATES, Gates
from shared.productions.specs import BestOf
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.records import KEPT, LIKELIHOOD, REJECTED, SPARE, Record

SCORE = "score"
"""The extra of a record that a classifier's score is."""
UNSCORED = -1.0
"""Of texts that nobody came to score, because the production was stopped."""
BLOCK_ITEMS = 256
BLOCK_CHARACTERS = 2**22
"""Items that are settled together: near-duplicates are looked for in many texts at once."""


class Known(Protocol):
    """The texts that were kept so far, of the whole production."""

    def add(self, texts: Sequence[str], /) -> Sequence[int | None]:
        """For each, in this order, None where it is like none of them: it is one of them then."""


class Settler:
    """Sees the items of a round in the order of the data, each once."""

    def __init__(self, gates: Gates, best_of: BestOf | None, known: Known | None) -> None:
        self._gates = gates
        self._best_of = best_of
        self._known = known

    def settled(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; records that have passed their gates get their verdict."""
        block: list[Item] = []
        characters = 0
        for item in items:
            block.append(item)
            characters += _characters(item)
            if self._known is None or len(block) == BLOCK_ITEMS or characters > BLOCK_CHARACTERS:
                self._settle(block)
                yield from block
                block, characters = [], 0
        self._settle(block)
        yield from block

    def _settle(self, block: Sequence[Item]) -> None:
        left = [passed for item in block if (passed := _passed(item))]
        if self._best_of is None:
            self._keep([record for passed in left for record in passed])
            return
        while left:
            chosen = [passed.pop(self._best(passed, self._best_of)) for passed in left]
            kept = self._keep(chosen)
            for passed, is_kept in zip(left, kept, strict=True):
                if is_kept:
                    for record in passed:
                        record.end(SPARE)
            left = [passed for passed in left if passed and passed[0].verdict is None]

    def _best(self, passed: Sequence[Record], rule: BestOf) -> int:
        scores = None
        if rule.model is not None:
            scores = [float(record.extras.get(SCORE, UNSCORED)) for record in passed]
        elif rule.asks_model:
            scores = [float(record.extras.get(LIKELIHOOD, -inf)) for record in passed]
        return best([record.text or "" for record in passed], rule, scores)

    def _keep(self, records: Sequence[Record]) -> list[bool]:
        """Which of them are like no other text that is kept."""
        like: Sequence[int | None] = [None] * len(records)
        if self._known is not None and records:
            like = self._known.add([self._gates.said(record.text or "") for record in records])
        for record, other in zip(records, like, strict=True):
            if other is None:
                record.end(KEPT)
            else:
                record.end(REJECTED, NEAR_DUPLICATES, "it is much like a text that was kept")
        return [other is None for other in like]

    def again(self, item: Item) -> list[Record]:
        """The candidates that the next round asks for once more, of a settled item."""
        if self._best_of is not None and any(one.verdict == KEPT for one in item.records):
            return []
        tried = [one.again() for one in item.records if one.verdict == REJECTED]
        for record in tried:
            record.extras.pop(SCORE, None)  # they are of the text that was refused
            record.extras.pop(LIKELIHOOD, None)
        return tried


def _passed(item: Item) -> list[Record]:
    return [record for record in item.records if record.verdict is None]


def _characters(item: Item) -> int:
    columns = sum(len(value) for value in item.columns.values() if isinstance(value, str))
    return columns + sum(len(record.text or "") for record in item.records)
