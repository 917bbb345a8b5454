"""A production's data, whatever kind of table it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from shared.errors import PressrunError
from shared.lifecycle import BadLine
from shared.productions.tables import (
    MOST_ROW_BYTES,
    Table,
    TableKind,
    TableRefused,
    TableRow,
    check_columns,
    kind_of,
    read_table,
    value_problem,
)
from worker.tuning.data.source import Source, seekable

CODE_ROOT = Path(__file__).resolve().parents[3]
READER = "worker.upkeep.productions.parquet_child"
NO_LIBRARY = 3
"""The child's exit code where pyarrow is not installed."""
EXIT_SECONDS = 10.0
MOST_SKIPPED_BYTES = 2**28
"""Of rows that are too long, as JSON; then the file is given up."""
MOST_FILE_BYTES = 2**34
"""Of a Parquet file, which has to lie on this machine to be read."""


class ReaderMissing(PressrunError):
    """Parquet can't be read on this worker; another one may."""


class ReaderGone(Exception):
    """The process that reads Parquet was killed from outside; it may be tried again."""


def open_table(
    source: Source, *, kind: TableKind | None = None, scratch: Path | None = None
) -> Table:
    """The table in an upload, by the end of its name where ``kind`` is None. Its rows are read
    once, while it streams; closing ``rows`` ends what reads it. Parquet is copied into ``scratch``
    unless the upload lies on this machine.

    Raises TableRefused, ReaderMissing, and what reading the source raises.
    """
    kind = kind or kind_of(source.filename)
    if kind is not TableKind.PARQUET:
        return read_table(source.open_chunks(), kind)
    rows = _parquet(source, scratch)
    header = next(rows)
    assert isinstance(header, Table)  # noqa: S101 - that comes first
    header.rows = _rows_of(rows)
    return header


def _rows_of(rows: Iterator[Table | TableRow | BadLine]) -> Iterator[TableRow | BadLine]:
    try:
        for row in rows:
            if not isinstance(row, Table):
                yield row
    finally:
        rows.close()  # type: ignore[attr-defined]


def _parquet(source: Source, scratch: Path | None) -> Iterator[Table | TableRow | BadLine]:
    """The table without its rows, and then its rows."""
    if source.size > MOST_FILE_BYTES:
        message = f"a Parquet file has at most {MOST_FILE_BYTES} bytes"
        raise TableRefused(BadLine("file_too_large", message))
    with ExitStack() as held:
        file = held.enter_context(seekable(source, scratch, MOST_FILE_BYTES))
        child = _start(file)
        held.callback(_end, child)
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        header = _line(child.stdout)
        if header is None:
            raise TableRefused(_died(child.wait(EXIT_SECONDS)))
        if "code" in header:
            raise TableRefused(BadLine(header["code"], header["message"], 1))
        check_columns(header["columns"])
        yield Table(header["columns"], iter(()), header["types"])
        yield from _values(child, header["columns"])


def _values(child: subprocess.Popen[bytes], columns: list[str]) -> Iterator[TableRow | BadLine]:
    assert child.stdout is not None  # noqa: S101
    number = skipped = 0
    while True:
        number += 1
        line = child.stdout.readline(MOST_ROW_BYTES + 1)
        if len(line) <= MOST_ROW_BYTES and not line.endswith(b"\n"):  # it has ended, or was ended
            code = child.wait(EXIT_SECONDS)
            if code != 0:
                yield _died(code)
            return
        if not line.endswith(b"\n"):
            while line and not line.endswith(b"\n") and skipped <= MOST_SKIPPED_BYTES:
                skipped += len(line)
                line = child.stdout.readline(MOST_ROW_BYTES)
            if skipped > MOST_SKIPPED_BYTES:
                message = "its rows are too long: the rest was not looked at"
                yield BadLine("invalid_table", message, number)
                return
            message = f"the row is longer than {MOST_ROW_BYTES} bytes"
            yield BadLine("line_too_long", message, number)
            continue
        values = json.loads(line)
        if isinstance(values, dict):
            yield BadLine(values["code"], values["message"], number)
            return
        yield _row(number, columns, values)


def _row(number: int, columns: list[str], values: list[Any]) -> TableRow | BadLine:
    problem = value_problem(values)
    if problem is not None:
        return BadLine("invalid_row", f"the row can't be used: {problem}", number)
    return TableRow(number, number, dict(zip(columns, values, strict=True)))


def _line(out: IO[bytes]) -> dict[str, Any] | None:
    line = out.readline(MOST_ROW_BYTES)
    if not line.endswith(b"\n"):
        return None
    found: dict[str, Any] = json.loads(line)
    return found


def _died(code: int) -> BadLine:
    """Raises ReaderMissing and ReaderGone for what is not the file's doing."""
    if code == NO_LIBRARY:
        raise ReaderMissing("Parquet can't be read here: pyarrow is not installed")
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        raise ReaderGone
    return BadLine("invalid_table", "reading the file takes too much time or memory")


def _start(file: IO[bytes]) -> subprocess.Popen[bytes]:
    file.seek(0)
    return subprocess.Popen(
        [sys.executable, "-B", "-m", READER],
        env={"ARROW_DEFAULT_MEMORY_POOL": "system"},  # whatever is in ours may be a credential
        cwd=CODE_ROOT,
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it may quote what it reads
        start_new_session=True,  # an interrupt at the terminal is the supervisor's
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with suppress(subprocess.TimeoutExpired):
        child.wait(EXIT_SECONDS)
    if child.stdout is not None:
        with suppress(OSError):
            child.stdout.close()
