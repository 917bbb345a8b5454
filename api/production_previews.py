"""A look at what a production would ask for, of its first rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from api import rendering
from api.production_requests import PreviewRequest, Read, hold_data, read_template
from api.rendering import Object
from api.services import Services
from shared.db.files import FileRow
from shared.errors import InvalidRequest
from shared.lifecycle.production_names import format_of, hold_models, hold_references

if TYPE_CHECKING:
    from shared.productions.rendering import Renderer
    from shared.productions.tables import Table, TableRow

MOST_SHOWN = 20
"""Audiences of a file."""
MOST_BYTES = 8 * 2**20
"""Of the data, that are read to find the first rows."""
MOST_CHARACTERS = 4_000_000
"""Of an answer: a template of a few words can ask for gigabytes."""
MOST_SECONDS = 5.0
"""That an answer is worked on, but for its last message."""


def preview(services: Services, tenant_id: str, asked: PreviewRequest) -> Object:
    """The answer's body. Raises NotFound, ModelNotFound, InvalidRequest or a subclass that names
    what is wrong, and what the store raises."""
    from shared.productions.outcomes import output_columns
    from shared.productions.rendering import Renderer

    read = read_template(asked)
    with services.transaction() as connection:
        hold_models(connection, tenant_id, read.models, read.template.head)
        held = hold_references(connection, tenant_id, read.template.head)
        file = hold_data(connection, tenant_id, asked.data_file_id)
    table = _table(services, file.storage_key, asked.data_format or format_of(file))
    table = _augmented(table, read, asked)
    rows = _first_rows(table, asked.rows)
    read.template.check_table(table.columns)
    head = read.template.head
    renderer = Renderer(read.template)
    audiences = _audiences(services, read, held.audiences)
    bounds = _Bounds()
    return {
        "object": "production.preview",
        "columns": list(table.columns),
        "output_columns": list(output_columns(head)),
        "models": list(read.models),
        "candidates": read.n * len(read.models),
        "data": [
            _item(read, renderer, row, audience, bounds) for row in rows for audience in audiences
        ],
    }


class _Bounds:
    """What is left of what one answer may hold, and take."""

    def __init__(self) -> None:
        self._characters = MOST_CHARACTERS
        self._ends = time.monotonic() + MOST_SECONDS

    def spend(self, characters: int) -> None:
        """Raises InvalidRequest."""
        self._characters -= characters
        if self._characters < 0:
            message = f"the preview gets longer than {MOST_CHARACTERS} characters"
            raise InvalidRequest(f"{message}: ask for fewer rows", param="rows")
        if time.monotonic() > self._ends:
            message = f"the preview takes more than {MOST_SECONDS:g} seconds"
            raise InvalidRequest(f"{message}: ask for fewer rows", param="rows")


def _table(services: Services, key: str, data_format: str) -> Table:
    """Raises InvalidRequest about the data."""
    from shared.productions.tables import TableKind, TableRefused, read_table

    if data_format == TableKind.PARQUET:
        message = "Parquet is not read here: preview a CSV or JSONL, or run it with 'dry_run'"
        raise InvalidRequest(message, param="data_format")
    try:
        return read_table(_beginning(services, key), TableKind(data_format))
    except TableRefused as refused:
        raise InvalidRequest(refused.bad.message, param="data_file_id") from None


def _augmented(table: Table, read: Read, asked: PreviewRequest) -> Table:
    """With a template that makes training data, the rows that are made of the table's. Raises
    InvalidRequest."""
    from shared.lifecycle import BadLine
    from shared.productions.augmenting import COLUMNS, Augmenter, Seed, augmenting, seed_of_row
    from shared.productions.tables import Table

    head = read.template.head
    task = augmenting(head)
    if task is None:
        return table
    seeds: list[Seed] = []
    for row in table.rows:
        if isinstance(row, BadLine):
            raise InvalidRequest(f"line {row.line}: {row.message}", param="data_file_id")
        seeds.append(seed_of_row(row.values, task.form, row.line))
    given = asked.sampling.seed if asked.sampling else None
    chance = given if given is not None else head.sampling.seed or 0
    return Table(list(COLUMNS), Augmenter(task, seeds, chance).rows())


def _beginning(services: Services, key: str) -> Iterator[bytes]:
    left = MOST_BYTES
    for chunk in services.store.read(key):
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            raise InvalidRequest(
                f"the first rows have more than {MOST_BYTES} bytes", param="data_file_id"
            )


def _first_rows(table: Table, count: int) -> list[TableRow]:
    """Raises InvalidRequest for one that is bad."""
    from shared.lifecycle import BadLine

    rows: list[TableRow] = []
    for row in islice(table.rows, count):
        if isinstance(row, BadLine):
            where = "" if row.line is None else f"line {row.line}: "
            raise InvalidRequest(f"{where}{row.message}", param="data_file_id")
        rows.append(row)
    if not rows:
        raise InvalidRequest("the data have no rows", param="data_file_id")
    return rows


def _audiences(
    services: Services, read: Read, file: FileRow | None
) -> Sequence[dict[str, Any] | None]:
    """Those of the template, or the first of the file that it names. Raises InvalidRequest."""
    own = read.template.head.audiences
    if isinstance(own, list):
        return own
    if file is None:
        return [None]
    rows = _first_rows(_table(services, file.storage_key, format_of(file)), MOST_SHOWN)
    for at, row in enumerate(rows):
        read.template.check_audience(row.values, f"audiences[{at}]")
    return [row.values for row in rows]


def _item(
    read: Read,
    renderer: Renderer,
    row: TableRow,
    audience: dict[str, Any] | None,
    bounds: _Bounds,
) -> Object:
    from shared.productions.rendering import RowRefused

    bounds.spend(len(rendering.compact(row.values)))
    prompts: Sequence[Object] = []
    error = None
    try:
        prompts = _prompts(read, renderer, row.values, audience, bounds)
    except RowRefused as refused:
        error = refused.message
    return {
        "row": row.number,
        "audience": None if audience is None else audience["name"],
        "columns": row.values,
        "prompts": prompts,
        "error": error,
    }


def _prompts(
    read: Read,
    renderer: Renderer,
    columns: dict[str, Any],
    audience: dict[str, Any] | None,
    bounds: _Bounds,
) -> list[Object]:
    """What would be looked up is not known yet. Raises RowRefused, and InvalidRequest for more
    than is shown."""
    from shared.productions.rendering import Source

    steps: list[str | None] = [step.name for step in read.template.head.steps]
    texts = {step: f"[{step}]" for step in steps if step is not None}
    documents = read.template.head.documents
    sources = [Source(at + 1, "[a passage]") for at in range(documents.n if documents else 0)]
    prompts: list[Object] = []
    for step in [*steps, None]:
        messages = renderer.messages(
            columns, step=step, audience=audience, sources=sources, texts=texts
        )
        bounds.spend(sum(len(message["content"]) for message in messages))
        prompts.append({"step": step, "messages": messages})
    return prompts
