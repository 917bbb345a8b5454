"""Writers of the joined output: the data's columns, and behind them what became of each line.

Nothing is added to a cell to keep a spreadsheet from taking it for a formula: what was generated is
what is written.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Protocol, Self

from shared.productions.filters import text_of
from shared.productions.outcomes import (
    AUDIENCE,
    CANDIDATE,
    MODEL,
    OUTPUT,
    REASON,
    SOURCES,
    STATUS,
    Status,
    output_columns,
)
from shared.productions.rendering import Source
from shared.productions.tables import TableKind
from shared.productions.template import Template

LINES_AT_ONCE = 1_000
BYTES_AT_ONCE = 2**22
"""Of texts that wait for a row group of Parquet."""
MEDIA_TYPES: dict[TableKind, str] = {
    TableKind.CSV: "text/csv",
    TableKind.JSONL: "application/jsonl",
    TableKind.PARQUET: "application/vnd.apache.parquet",
}


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line of the output. ``candidate`` counts from 1, over all models of the item; it is 1
    where only the best is kept."""

    values: Mapping[str, Any]
    """Of the row."""
    status: Status
    candidate: int = 1
    output: str | None = None
    audience: str | None = None
    model: str | None = None
    reason: str | None = None
    sources: Sequence[Source] = field(default=())


class OutputWriter(Protocol):
    """Lines go out in the order in which they come; ``close`` writes what is left."""

    def write(self, line: OutputLine) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def open_output(
    file: IO[bytes],
    kind: TableKind,
    template: Template,
    columns: Sequence[str],
    types: Mapping[str, str] | None = None,
) -> OutputWriter:
    """A writer into ``file``, which stays open. ``columns`` and ``types`` are those of the data's
    table (``Table``). Parquet needs a file that tells its position."""
    shape = _Shape(template, list(columns))
    if kind is TableKind.CSV:
        return _Csv(file, shape)
    if kind is TableKind.JSONL:
        return _Jsonl(file, shape)
    return _Parquet(file, shape, types or {})


class _Shape:
    """The columns of an output, and a line's values in their order."""

    def __init__(self, template: Template, columns: list[str]) -> None:
        self._own = columns
        self._added = output_columns(template.head)
        self.names = [*columns, *self._added]
        self.structured = template.head.json_schema is not None

    def values(self, line: OutputLine) -> list[Any]:
        added = {
            OUTPUT: line.output,
            STATUS: line.status.value,
            CANDIDATE: line.candidate,
            AUDIENCE: line.audience,
            MODEL: line.model,
            REASON: line.reason,
            SOURCES: [_cited(source) for source in line.sources],
        }
        own = [line.values.get(name) for name in self._own]
        return own + [added[name] for name in self._added]


def _cited(source: Source) -> dict[str, Any]:
    return {
        "number": source.number,
        "file": source.file,
        "name": source.name,
        "passage": source.passage,
        "score": round(source.score, 4),
        "text": source.text,
    }


class _Writer:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing waits."""


class _Csv(_Writer):
    """UTF-8, commas, line feeds; quotation marks where a cell needs them. Lists and objects are
    written as JSON, null as nothing."""

    def __init__(self, file: IO[bytes], shape: _Shape) -> None:
        self._shape = shape
        self._out = _Encoded(file)
        self._rows = csv.writer(self._out, lineterminator="\n")
        self._rows.writerow(shape.names)

    def write(self, line: OutputLine) -> None:
        self._rows.writerow([text_of(value) for value in self._shape.values(line)])


class _Encoded:
    """What ``csv`` writes to."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode("utf-8", "replace"))


class _Jsonl(_Writer):
    """An object a line. An output that has a schema is the object itself, not its text."""

    def __init__(self, file: IO[bytes], shape: _Shape) -> None:
        self._file = file
        self._shape = shape

    def write(self, line: OutputLine) -> None:
        values = dict(zip(self._shape.names, self._shape.values(line), strict=True))
        if self._shape.structured and line.status is Status.SUCCEEDED and line.output is not None:
            values[OUTPUT] = json.loads(line.output)
        written = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")
        self._file.write(written + b"\n")


class _Parquet(_Writer):
    """The data's columns keep the types that their table has; all others are text, lists and
    objects as JSON."""

    def __init__(self, file: IO[bytes], shape: _Shape, types: Mapping[str, str]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        known = {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
        kinds = {name: known.get(kind, pa.string()) for name, kind in types.items()}
        kinds[CANDIDATE] = pa.int64()
        self._shape = shape
        self._schema = pa.schema([(name, kinds.get(name, pa.string())) for name in shape.names])
        self._text = [kinds.get(name, pa.string()) == pa.string() for name in shape.names]
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._pending: list[list[Any]] = []
        self._bytes = 0

    def write(self, line: OutputLine) -> None:
        values = [
            _text_or_null(value) if is_text else value
            for value, is_text in zip(self._shape.values(line), self._text, strict=True)
        ]
        self._pending.append(values)
        self._bytes += sum(len(value) for value in values if isinstance(value, str))
        if len(self._pending) >= LINES_AT_ONCE or self._bytes >= BYTES_AT_ONCE:
            self._flush()

    def close(self) -> None:
        if self._pending:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = zip(*self._pending, strict=True)
        arrays = [
            pa.array(column, kind) for column, kind in zip(columns, self._schema.types, strict=True)
        ]
        self._writer.write_table(pa.table(arrays, schema=self._schema))
        self._pending.clear()
        self._bytes = 0


def _text_or_null(value: Any) -> str | None:
    return None if value is None else text_of(value).encode("utf-8", "replace").decode()
