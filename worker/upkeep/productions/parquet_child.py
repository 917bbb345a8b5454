"""The child process that reads a stranger's Parquet file: no credentials, little memory.

Run as ``python -m worker.upkeep.productions.parquet_child`` with the file as its standard input. It
answers with a line ``{"columns": […], "types": {…}}`` and a line of JSON for each row, a list of
values in the columns' order, or with ``{"code", "message"}`` where it can't go on.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import resource
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any, BinaryIO

NO_LIBRARY = 3
"""Exit code where pyarrow is not installed."""
MEMORY_BYTES = 3 * 2**30
"""Of addresses; pyarrow alone takes about one and a half."""
CPU_SECONDS = 3_600
ROWS_AT_ONCE = 64
MOST_COLUMNS = 1_000
MOST_NAME = 200
_TYPES = {"bool": "bool", "float": "double", "double": "double", "halffloat": "double"}


def main() -> int:
    try:
        import pyarrow.parquet  # noqa: F401 - before the limits
    except ImportError:
        return NO_LIBRARY
    _confine()
    out = os.fdopen(1, "wb", buffering=2**16)
    try:
        _read(sys.stdin.buffer, out)
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more
    except MemoryError:
        _say(out, {"code": "invalid_table", "message": "the file takes too much memory to read"})
    except Exception as error:
        what = f"the file is not Parquet that can be read here ({type(error).__name__})"
        _say(out, {"code": "invalid_table", "message": what})
    with contextlib.suppress(BrokenPipeError):
        out.flush()
    os._exit(0)  # threads of the library need not be waited for


def _confine() -> None:
    import pyarrow as pa

    pa.set_cpu_count(1)
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, most in limits.items():
        _, hard = resource.getrlimit(limit)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # At the soft limit of time it ends by SIGXCPU, which nobody else sends.
        resource.setrlimit(limit, (least, hard if limit == resource.RLIMIT_CPU else least))


def _read(source: BinaryIO, out: BinaryIO) -> None:
    from pyarrow import parquet

    with parquet.ParquetFile(source, memory_map=False, pre_buffer=False) as file:
        schema = file.schema_arrow
        problem = _problem(schema.names)
        if problem is not None:
            _say(out, {"code": "invalid_header", "message": problem})
            return
        types = {each.name: known for each in schema if (known := _type(str(each.type)))}
        _say(out, {"columns": schema.names, "types": types})
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
            columns = [column.to_pylist() for column in batch.columns]
            for row in zip(*columns, strict=True):
                _say(out, [_plain(value) for value in row])


def _problem(names: list[str]) -> str | None:
    if not names:
        return "the table has no columns"
    if len(names) > MOST_COLUMNS:
        return f"more than {MOST_COLUMNS} columns"
    if any(not name.strip() or len(name) > MOST_NAME for name in names):
        return f"a column's name has from 1 to {MOST_NAME} characters"
    if len(set(names)) < len(names):
        return "a column is there twice"
    return None


def _type(name: str) -> str | None:
    return "int64" if name.startswith(("int", "uint")) and name != "uint64" else _TYPES.get(name)


_WRITTEN: tuple[tuple[tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((float,), lambda value: value if math.isfinite(value) else None),
    ((datetime, date, time), lambda value: value.isoformat()),
    ((timedelta,), lambda value: value.total_seconds()),
    ((bytes,), lambda value: base64.b64encode(value).decode()),
    ((dict,), lambda value: {str(key): _plain(each) for key, each in value.items()}),
    ((list, tuple), lambda value: [_plain(each) for each in value]),
)


def _plain(value: Any) -> Any:
    """As JSON has it: dates as in ISO 8601, bytes as base64, NaN as null; decimals as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    for kinds, written in _WRITTEN:
        if isinstance(value, kinds):
            return written(value)
    return str(value)


def _say(out: BinaryIO, answer: Any) -> None:
    out.write(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


if __name__ == "__main__":
    sys.exit(main())
