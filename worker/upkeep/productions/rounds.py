"""One going over the data of a production: what was answered is read and judged, what is to be
asked next is written down.

Rows, records and answers are streams in one order, so memory is that of an item, however many
there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import msgspec

from shared.productions.plan import Phase
from shared.storage.base import ObjectWriter, StoredObject
from worker.upkeep.assembly import Interrupted, LazyWriter
from worker.upkeep.productions.answers import Answers
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.phases import Runner, Work
from worker.upkeep.productions.records import FAILED, KEPT, REJECTED, STOPPED, Record, encoded
from worker.upkeep.productions.running import runner_of
from worker.upkeep.productions.settling import SCORE, UNSCORED, Settler

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Position:
    """Where a production is: the phase whose batch it waits for."""

    round: int
    phase: int


@dataclass(slots=True)
class Made:
    """What a pass has written."""

    next: Position | None
    """Whose batch is to be added; None: there is nothing more to ask."""
    endpoint: str = ""
    requests: int = 0
    asked: StoredObject | None = None
    """Records of the next batch …"""
    input: StoredObject | None = None
    """… and its rows."""
    judged: StoredObject | None = None
    """Records of a round that is over."""
    kept: int = 0
    """Texts that it has found good."""
    again: int = 0
    """Candidates of a round that is over that are to be asked once more, if there is another."""
    stopped: int = 0
    """Candidates that nobody came to."""
    refusals: Counter[str] = field(default_factory=Counter)
    """By gate."""


OpenWriter = Callable[[str], ObjectWriter]
"""A new object of this attempt's, by its name."""


@dataclass(slots=True)
class Passage:
    """A pass, and all that it needs."""

    work: Work
    phases: list[Phase]
    retries: int
    writer: OpenWriter
    interrupted: Callable[[], bool]
    max_line_bytes: int
    settler: Settler | None = None
    """For the end of a round."""
    closing: str | None = None
    """The code of candidates that nobody will ask any more; None: the production goes on."""
    _made: Made = field(default_factory=lambda: Made(None))

    def begin(self, items: Iterable[Item]) -> Made:
        """Asks for the first time."""
        return self._go_over(items, None, None, Position(0, 0))

    def go_on(self, items: Iterable[Item], answers: Answers, at: Position) -> Made:
        """Reads the answers to the batch of ``at``."""
        runner = runner_of(self.work, self.phases[at.phase], at.round)
        return self._go_over(items, runner, answers, self._after(at))

    def _after(self, at: Position) -> Position | None:
        if self.closing is not None:
            return None
        if at.phase + 1 < len(self.phases):
            return Position(at.round, at.phase + 1)
        return Position(at.round + 1, 0) if at.round < self.retries else None

    def _go_over(
        self,
        items: Iterable[Item],
        runner: Runner | None,
        answers: Answers | None,
        to: Position | None,
    ) -> Made:
        made = self._made = Made(to)
        ends_round = runner is not None and (to is None or to.phase == 0)
        asking = runner_of(self.work, self.phases[to.phase], to.round) if to else None
        with ExitStack() as stack:
            judged = self._new(stack, "judged.jsonl")
            asked, rows = self._new(stack, "asked.jsonl"), self._new(stack, "input.jsonl")
            for item in self._read(items, runner, answers, ends_round=ends_round):
                if ends_round:
                    self._end_round(item, judged)
                if asking is not None and item.records:
                    self._ask(item, asking, asked, rows)
            made.judged, made.asked, made.input = judged.finish(), asked.finish(), rows.finish()
        made.endpoint = asking.endpoint if asking else ""
        return made

    def _new(self, stack: ExitStack, name: str) -> LazyWriter:
        return LazyWriter(lambda: stack.enter_context(self.writer(name)))

    def _read(
        self,
        items: Iterable[Item],
        runner: Runner | None,
        answers: Answers | None,
        *,
        ends_round: bool,
    ) -> Iterator[Item]:
        """The items with what was answered, and judged where their round is over."""
        answered = self._answered(items, runner, answers)
        if not ends_round:
            return answered
        if self.settler is None:
            raise AssertionError("a round ends without anybody to settle it")
        return self.settler.settled(answered)

    def _answered(
        self, items: Iterable[Item], runner: Runner | None, answers: Answers | None
    ) -> Iterator[Item]:
        read = self._unless_interrupted(items)
        if runner is not None and answers is not None:
            read = runner.read(read, answers, self.closing or "internal_error")
        for item in read:
            if self.closing is not None:
                for record in item.records:
                    if record.verdict is None and record.text is None:
                        record.end(STOPPED, self.closing, "it was not asked for to its end")
            yield item

    def _unless_interrupted(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if self.interrupted():
                raise Interrupted
            yield item

    def _end_round(self, item: Item, judged: LazyWriter) -> None:
        """Afterwards the item has the records that the next round begins with."""
        if self.settler is None:
            raise AssertionError("a round ends without anybody to settle it")
        self._count(item)
        judged.write(b"".join(map(encoded, item.records)))
        again = self.settler.again(item)
        self._made.again += len(again)
        item.records = again if self._made.next is not None else []

    def _count(self, item: Item) -> None:
        for record in item.records:
            self._made.kept += record.verdict == KEPT
            is_unscored = record.extras.get(SCORE) == UNSCORED
            self._made.stopped += record.verdict == STOPPED or is_unscored
            if record.verdict == REJECTED:
                self._made.refusals[record.reason or ""] += 1

    def _ask(self, item: Item, asking: Runner, asked: LazyWriter, rows: LazyWriter) -> None:
        by_place = {str(record.place): record for record in item.records}
        for custom_id, body in asking.requests(item):
            line = {"custom_id": custom_id, "method": "POST", "url": asking.endpoint, "body": body}
            data = _encode(line) + b"\n"
            if len(data) > self.max_line_bytes:
                _too_long(by_place.get(custom_id), len(data), self.max_line_bytes)
                continue
            rows.write(data)
            self._made.requests += 1
        asked.write(b"".join(map(encoded, item.records)))


def _too_long(record: Record | None, size: int, most: int) -> None:
    if record is None:
        raise ValueError("a row of no candidate is too long")
    record.end(FAILED, "prompt_too_long", f"the call has {size} bytes; {most} are the most")
