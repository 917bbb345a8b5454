"""The first look at a production's data: every row is rendered, and every bad one named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from shared.errors import InvalidRequest
from shared.lifecycle import BadLine
from shared.productions.plan import Plan
from shared.productions.tables import Table, TableRefused, TableRow
from shared.productions.template import Template
from worker.upkeep.assembly import Interrupted
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.phases import Runner
from worker.upkeep.productions.records import FAILED, Record

MOST_MESSAGE = 500
MOST_PARAM = 100
INVALID_ROW = "invalid_row"
TOO_MANY = "too_many_candidates"
TOO_MANY_BAD = "too_many_bad_rows"
MOST_BAD_ROWS = 10_000
"""Of one table; then the rest is not looked at. A few bytes of Parquet hold billions of rows."""

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Found:
    """What is known of the data afterwards."""

    rows: int = 0
    bad_rows: int = 0
    errors: list[BadLine] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)

    def refuse(self, error: BadLine, most: int) -> None:
        self.bad_rows += 1
        if len(self.errors) < most:
            param = error.param and error.param[:MOST_PARAM]
            self.errors.append(replace(error, message=error.message[:MOST_MESSAGE], param=param))

    def stop(self, most: int) -> None:
        """The rest of the rows is not looked at, which is told first."""
        message = f"{self.bad_rows} rows can't be used: the rest of the data was not looked at"
        self.errors = [BadLine(TOO_MANY_BAD, message), *self.errors][:most]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one production."""

    candidates: int
    """Of all rows; as many as a batch may have rows."""
    line_bytes: int
    reported: int


class Checker:
    """Looks at the data once. ``see`` gets every row of a batch's input, as it will be."""

    def __init__(
        self,
        template: Template,
        plan: Plan,
        first: Runner,
        limits: Limits,
        *,
        interrupted: Callable[[], bool],
        see: Callable[[bytes], None] | None = None,
    ) -> None:
        self._template = template
        self._plan = plan
        self._first = first
        self._limits = limits
        self._interrupted = interrupted
        self._see = see
        self._found = Found()

    def run(self, table: Table, audiences: list[dict[str, Any]]) -> Found:
        """Raises Interrupted, and what reading the data raises."""
        found = self._found
        try:
            for row in self._rows(table):
                if found.bad_rows >= MOST_BAD_ROWS:
                    found.stop(self._limits.reported)
                    return found
                if isinstance(row, BadLine):
                    found.refuse(row, self._limits.reported)
                    continue
                found.rows += 1
                if found.rows * self._plan.audiences * self._plan.candidates > (
                    self._limits.candidates
                ):
                    found.refuse(self._too_many(), self._limits.reported)
                    return found
                self._look_at(row, audiences)
            found.columns, found.types = list(table.columns), dict(table.types)
            if not found.rows and not found.bad_rows:
                found.refuse(BadLine("empty_file", "the data have no rows"), 1)
            elif found.rows:
                self._template.check_table(found.columns)
        except TableRefused as refused:
            found.refuse(refused.bad, self._limits.reported)
        except InvalidRequest as wrong:
            found.refuse(BadLine(wrong.code, wrong.message, None, wrong.param), 1)
            found.errors.sort(key=lambda error: error.line is not None)
        return found

    def _rows(self, table: Table) -> Iterator[TableRow | BadLine]:
        """With a header that says which columns there are, one that is missing is told first."""
        if table.columns:
            self._template.check_table(table.columns)
        for row in table.rows:
            if self._interrupted():
                raise Interrupted
            yield row

    def _too_many(self) -> BadLine:
        plan, most = self._plan, self._limits.candidates
        each = plan.audiences * plan.candidates
        return BadLine(
            TOO_MANY,
            f"the data have more than {most // each} rows: with {plan.audiences} audience(s),"
            f" {len(plan.models)} model(s) and n={plan.n} that is over {most} candidates",
            None,
            "n",
        )

    def _look_at(self, row: TableRow, audiences: list[dict[str, Any]]) -> None:
        for item in self._items(row, audiences):
            for custom_id, body in self._first.requests(item):
                self._check_size(row, custom_id, body)
            failed = next((one for one in item.records if one.verdict == FAILED), None)
            if failed is not None:
                message = failed.message or "the row can't be rendered"
                self._found.refuse(
                    BadLine(failed.reason or INVALID_ROW, message, row.line), self._limits.reported
                )
                return

    def _items(self, row: TableRow, audiences: list[dict[str, Any]]) -> Iterable[Item]:
        for number in range(self._plan.audiences):
            about = audiences[number] if audiences else None
            places = [each for each in self._plan.places(row.number) if each.audience == number]
            if self._see is None:  # its other candidates get the same messages
                places = places[:1]
            yield Item(row.number, number, row.values, about, [Record.of(each) for each in places])

    def _check_size(self, row: TableRow, custom_id: str, body: dict[str, Any]) -> None:
        url = self._first.endpoint
        line = {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
        data = _encode(line) + b"\n"
        if len(data) > self._limits.line_bytes:
            message = f"the call has {len(data)} bytes; {self._limits.line_bytes} are the most"
            error = BadLine("prompt_too_long", message, row.line)
            self._found.refuse(error, self._limits.reported)
        elif self._see is not None:
            self._see(data)
