"""Cutting a batch: slices cover every row once, in order, within bounds."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shared.sharding import MAX_BYTES, MAX_ROWS, TARGET_SECONDS, Cutter, Slice
from worker.rows import slice_rows
from worker.upkeep.lines import read_lines


@dataclass(frozen=True)
class RowAt:
    line: int
    start: int
    end: int
    seconds: float


def cut(cutter: Cutter, rows: list[RowAt]) -> list[Slice]:
    slices = []
    for row in rows:
        done = cutter.add(
            line=row.line, byte_start=row.start, byte_end=row.end, seconds=row.seconds
        )
        if done is not None:
            slices.append(done)
    last = cutter.last()
    return slices if last is None else [*slices, last]


@st.composite
def files(draw: st.DrawFn) -> list[RowAt]:
    """Rows of any size and cost, blank lines between them."""
    rows, line, offset = [], 1, 0
    for _ in range(draw(st.integers(0, 60))):
        blanks = draw(st.integers(0, 2))
        line, offset = line + blanks, offset + blanks
        length = draw(st.integers(1, 400))
        seconds = draw(st.floats(0, 50, allow_nan=False))
        rows.append(RowAt(line, offset, offset + length, seconds))
        line, offset = line + 1, offset + length
    return rows


@given(files(), st.integers(1, 20), st.integers(1, 2_000), st.floats(0.5, 100, allow_nan=False))
def test_slices_tile_the_rows_within_their_bounds(
    rows: list[RowAt], max_rows: int, max_bytes: int, target_seconds: float
) -> None:
    slices = cut(Cutter(max_rows, max_bytes, target_seconds), rows)
    assert [part.ordinal for part in slices] == list(range(len(slices)))
    assert sum(part.row_count for part in slices) == len(rows)
    left = list(rows)
    for part in slices:
        mine, left = left[: part.row_count], left[part.row_count :]
        assert (part.byte_start, part.byte_end) == (mine[0].start, mine[-1].end)
        assert part.first_line == mine[0].line
        assert part.row_count <= max_rows
        if part.row_count > 1:  # a row that is too much by itself still has to go somewhere
            assert part.byte_end - part.byte_start <= max_bytes
            assert sum(row.seconds for row in mine[1:]) + mine[0].seconds <= target_seconds * 1.001
    assert left == []
    for before, after in itertools.pairwise(slices):
        assert before.byte_end <= after.byte_start


@given(files())
def test_slices_are_as_large_as_they_may_be(rows: list[RowAt]) -> None:
    """No two neighbours would have fitted into one."""
    slices = cut(Cutter(10, 1_000, 60.0), rows)
    left = list(rows)
    for before, after in itertools.pairwise(slices):
        mine, left = left[: before.row_count], left[before.row_count :]
        first = left[0]
        assert (
            len(mine) == 10
            or first.end - before.byte_start > 1_000
            or sum(row.seconds for row in mine) + first.seconds > 59.999
        )
        assert after.first_line == first.line


@given(
    st.lists(st.sampled_from([b"", b"  ", b"\r", b"row"]), max_size=40),
    st.booleans(),
    st.integers(1, 5),
)
def test_reading_the_slices_back_gives_every_row_with_its_line(
    kinds: list[bytes], last_newline: bool, max_rows: int
) -> None:
    lines = [
        json.dumps({"custom_id": str(n), "method": "POST", "url": "/v", "body": {"model": "m"}})
        .encode() if kind == b"row" else kind
        for n, kind in enumerate(kinds, start=1)
    ]  # fmt: skip
    data = b"\n".join(lines) + (b"\n" if last_newline else b"")
    rows = [
        RowAt(line.number, line.byte_start, line.byte_end, 0.0)
        for line in read_lines([data], max_bytes=10_000)
        if line.text is not None and line.text.strip()
    ]
    found = []
    for part in cut(Cutter(max_rows=max_rows), rows):
        read = slice_rows([data[part.byte_start : part.byte_end]], part.first_line)
        assert len(read) == part.row_count
        assert [row.index for row in read] == list(range(len(read)))
        found += [(row.line, row.custom_id) for row in read]
    assert found == [(n, str(n)) for n, kind in enumerate(kinds, start=1) if kind == b"row"]


def test_an_empty_file_has_no_slices() -> None:
    assert cut(Cutter(), []) == []


def test_defaults_keep_a_shard_small() -> None:
    assert (MAX_ROWS, MAX_BYTES) == (256, 8 * 2**20)
    assert 30 <= TARGET_SECONDS <= 120
