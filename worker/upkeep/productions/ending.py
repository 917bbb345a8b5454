"""The output of a production: the data once more, and behind each row what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.productions.outcomes import Status
from shared.productions.plan import Plan
from shared.productions.rendering import Source
from worker.upkeep.assembly import Interrupted
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.opening import State
from worker.upkeep.productions.records import (
    FAILED,
    KEPT,
    NOT_FOUND,
    REJECTED,
    SPARE,
    STOPPED,
    Record,
)
from worker.upkeep.productions.references import NONE, References
from worker.upkeep.productions.results import OutputLine, OutputWriter

_STATUS = {
    KEPT: Status.SUCCEEDED,
    REJECTED: Status.REJECTED,
    FAILED: Status.FAILED,
    STOPPED: Status.FAILED,
    NOT_FOUND: Status.NOT_FOUND,
}
_BEST_FIRST = (KEPT, NOT_FOUND, REJECTED, FAILED, STOPPED)


@dataclass(slots=True)
class Tally:
    """What the lines of an output say, counted."""

    lines: int = 0
    by_status: Counter[Status] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    """By gate."""
    failed: Counter[str] = field(default_factory=Counter)
    """By code."""

    def count(self, record: Record, status: Status) -> None:
        self.lines += 1
        self.by_status[status] += 1
        if status is Status.REJECTED:
            self.rejected[record.reason or ""] += 1
        elif status is Status.FAILED:
            self.failed[record.reason or ""] += 1


def write_lines(
    items: Iterable[Item],
    plan: Plan,
    output: OutputWriter,
    interrupted: Callable[[], bool],
    references: References = NONE,
) -> Tally:
    """Writes every line of the output; items have the last word on each of their candidates.
    Raises Interrupted, and what the data and the writer raise."""
    tally = Tally()
    for item in items:
        if interrupted():
            raise Interrupted
        for record in _told(item, plan):
            status = _STATUS[record.verdict or STOPPED]
            tally.count(record, status)
            sources = references.sources_of(record)
            output.write(_line(item, record, status, plan, sources))
    return tally


def _told(item: Item, plan: Plan) -> Iterator[Record]:
    if not plan.keeps_best:
        yield from item.records
        return
    by_verdict = {record.verdict: record for record in reversed(item.records)}
    yield next(by_verdict[verdict] for verdict in _BEST_FIRST if verdict in by_verdict)


def _line(
    item: Item, record: Record, status: Status, plan: Plan, sources: Sequence[Source]
) -> OutputLine:
    if record.verdict == SPARE:
        raise AssertionError("a spare candidate has no line")
    has_text = status in {Status.SUCCEEDED, Status.NOT_FOUND}
    return OutputLine(
        item.columns,
        status,
        1 if plan.keeps_best else record.model * plan.n + record.candidate + 1,
        output=record.text if has_text else None,
        audience=None if item.about is None else str(item.about["name"]),
        model=plan.models[record.model],
        reason=None if has_text else _reason(record),
        sources=sources,
    )


def _reason(record: Record) -> str:
    return ": ".join(filter(None, (record.reason, record.message)))


def summary_of(
    tally: Tally, plan: Plan, state: State, *, rows: int, tokens: tuple[int, int]
) -> dict[str, Any]:
    """For the tenant. Raises AssertionError where the lines are not those that there should be."""
    items = rows * plan.audiences
    if tally.lines != items * plan.kept:
        raise AssertionError(f"{tally.lines} lines of {items} items with {plan.kept} each")
    counted = tally.by_status
    return {
        "rows": rows,
        "items": items,
        "candidates": items * plan.candidates,
        "lines": tally.lines,
        "succeeded": counted[Status.SUCCEEDED],
        "rejected": counted[Status.REJECTED],
        "rejected_by_gate": _sorted(tally.rejected),
        "failed": counted[Status.FAILED],
        "failed_by_code": _sorted(tally.failed),
        "not_found": counted[Status.NOT_FOUND],
        "rounds": len(state.judged),
        "regenerated": state.regenerated,
        "refusals": _sorted(state.refusals),
        "duplicates_removed": state.refusals.get("near_duplicates", 0),
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
    }


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts)}
