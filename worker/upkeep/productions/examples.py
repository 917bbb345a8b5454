"""Few-shot examples that are like the row: read from a file, and chosen by embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shared.errors import InvalidRequest
from shared.lifecycle import BadLine
from shared.productions.filters import text_of
from shared.productions.outcomes import OUTPUT
from shared.productions.plan import Phase
from shared.productions.rendering import RowRefused
from shared.productions.specs import Example
from shared.productions.tables import Table
from shared.productions.template import BODY, Template
from worker.upkeep.productions.embedding import Found, Lookup
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.phases import Work
from worker.upkeep.productions.records import Record
from worker.upkeep.productions.references import EXAMPLES

INPUT = "input"
PARAM = "template.examples_from.file"
MOST_EXAMPLES = 10_000
MOST_BYTES = 32 * 2**20
"""Of all texts in them: every pass holds them in memory."""


def read_examples(table: Table, template: Template) -> Iterator[Example]:
    """The examples in a file: its columns and the text wanted for them in ``output``; or an object
    ``input`` with the columns. Only those that the body uses are kept.

    Raises InvalidRequest, and what reading the table raises.
    """
    count = size = 0
    for row in table.rows:
        if isinstance(row, BadLine):
            raise _wrong(row.line, row.message)
        count += 1
        if count > MOST_EXAMPLES:
            raise _wrong(None, f"it has more than {MOST_EXAMPLES} examples")
        try:
            example = _example(row.values, template)
        except (RowRefused, ValueError) as refused:
            raise _wrong(row.line, str(refused)) from None
        size += len(example.output) + sum(len(text_of(one)) for one in example.input.values())
        if size > MOST_BYTES:
            raise _wrong(None, f"its texts have more than {MOST_BYTES} characters")
        yield example
    if not count:
        raise _wrong(None, "it has no examples")


def _example(values: Mapping[str, Any], template: Template) -> Example:
    """Raises ValueError, and RowRefused for one whose question can't be rendered."""
    body = template.texts[BODY]
    given = values.get(INPUT)
    columns = given if isinstance(given, dict) and set(values) == {INPUT, OUTPUT} else values
    output = text_of(values.get(OUTPUT))
    if not output.strip():
        raise ValueError(f"it has no '{OUTPUT}'")
    missing = sorted(body.columns - set(columns))
    if missing:
        raise ValueError(f"it has no '{missing[0]}', which the body uses")
    example = Example(input={name: columns[name] for name in sorted(body.columns)}, output=output)
    if not (body.uses_audience or body.uses_sources):  # which differ from item to item
        body.render(example.input)
    return example


def _wrong(line: int | None, message: str) -> InvalidRequest:
    where = "" if line is None else f"line {line}: "
    return InvalidRequest(f"examples_from.file: {where}{message}", param=PARAM)


class Likening(Lookup):
    """Rows get the examples that are most like them; one without text the first."""

    extra = EXAMPLES

    def __init__(self, work: Work, phase: Phase) -> None:
        wanted = work.template.head.examples_from
        if wanted is None:
            raise AssertionError("a phase of examples without a file of them")
        renderer, examples = work.renderer, work.references.examples
        # A blank is what an empty text is for embedding models, which take none.
        corpus = [renderer.input_text(one.input) or " " for one in examples]
        super().__init__(phase, corpus, wanted.n)
        self._renderer = renderer

    def text(self, item: Item) -> str:
        return self._renderer.input_text(item.columns)

    def take(self, item: Item, records: Sequence[Record], found: Sequence[Found]) -> None:
        chosen = [one.at for one in found] or list(range(min(self._most, len(self._corpus))))
        for record in records:
            record.extras = {**record.extras, EXAMPLES: chosen}
