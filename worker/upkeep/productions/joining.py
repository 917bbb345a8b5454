"""Going over the data and what is known of it side by side: all of it is in the order of the rows,
so nothing but the row at hand is held."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any

from shared.productions.plan import Plan
from worker.upkeep.productions.records import STOPPED, Record

Columns = Mapping[str, Any]
Numbered = tuple[int, Columns]
"""A row of the data, from 1, and its columns by name."""

_item = attrgetter("item")
_place = attrgetter("place")


@dataclass(slots=True)
class Item:
    """A row for one audience, and its candidates in their order."""

    row: int
    audience: int
    columns: Columns
    about: Columns | None
    """The audience's columns; None where there are none."""
    records: list[Record] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Audiences:
    """Those of the template, or of the file that it names; there may be none."""

    listed: Sequence[Columns] = ()

    def about(self, number: int) -> Columns | None:
        return self.listed[number] if self.listed else None


def fresh_items(rows: Iterable[Numbered], audiences: Audiences, plan: Plan) -> Iterator[Item]:
    """Every item of the data, with its candidates as nobody has asked for them."""
    for number, columns in rows:
        for (_, audience), places in groupby(plan.places(number), key=_item):
            records = [Record.of(place) for place in places]
            yield Item(number, audience, columns, audiences.about(audience), records)


def items_of(
    rows: Iterable[Numbered], audiences: Audiences, records: Iterator[Record]
) -> Iterator[Item]:
    """The items that ``records`` are about, which are in the order of the data."""
    groups = groupby(records, key=_item)
    found = next(groups, None)
    for number, columns in rows:
        while found is not None and found[0][0] == number:
            audience = found[0][1]
            about = audiences.about(audience)
            yield Item(number, audience, columns, about, list(found[1]))
            found = next(groups, None)
        if found is None:
            return
    if found is not None:
        raise ValueError(f"there is no row {found[0][0]} in the data")


def last_words(rounds: Sequence[Iterator[Record]]) -> Iterator[Record]:
    """Of each candidate what its last round has found, in the order of the data; a round that was
    cut short counts only where there was none before. ``rounds`` are in their order."""
    merged = heapq.merge(*rounds, key=_place)
    for _, tries in groupby(merged, key=_place):
        yield _last(list(tries))


def _last(tries: Sequence[Record]) -> Record:
    told = [one for one in tries if one.verdict != STOPPED]
    return told[-1] if told else tries[-1]
