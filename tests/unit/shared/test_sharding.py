"""Cutting a batch: slices cover every row once, in order, within bounds."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shared.sharding import (
    MAX_BYTES,
    MAX_ROWS,
    TARGET_SECONDS,
    Cutter,
    PoolCutters,
    Slice,
    in_order,
)
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


POOLS = ["text", "image", "speech"]


@given(
    st.lists(st.sampled_from([b"", b" ", *(pool.encode() for pool in POOLS)]), max_size=60),
    st.booleans(),
)
def test_slices_of_mixed_pools_read_back_every_row_in_its_pool(
    kinds: list[bytes], last_newline: bool
) -> None:
    lines = [
        json.dumps({"custom_id": str(n), "method": "POST", "url": kind.decode(),
                    "body": {"model": "m"}}).encode() if kind.strip() else kind
        for n, kind in enumerate(kinds, start=1)
    ]  # fmt: skip
    data = b"\n".join(lines) + (b"\n" if last_newline else b"")
    cutters, slices = PoolCutters(), []
    for line in read_lines([data], max_bytes=10_000):
        if line.text is None or not line.text.strip():
            continue
        done = cutters.add(
            kinds[line.number - 1].decode(),
            line=line.number,
            byte_start=line.byte_start,
            byte_end=line.byte_end,
            seconds=25.0,  # two to a slice
        )
        slices += [] if done is None else [done]
    slices = in_order([*slices, *cutters.rest()])
    assert [part.ordinal for part in slices] == list(range(len(slices)))
    firsts = [part.first_line for part in slices]
    assert firsts == sorted(firsts)
    found = []
    for part in slices:
        text = data[part.byte_start : part.byte_end]
        read = slice_rows([text], part.first_line, part.lines)
        assert len(read) == part.row_count <= 2
        assert {row.endpoint for row in read} == {part.pool}
        # Line numbers are listed only where they are needed.
        everything = slice_rows([text], part.first_line)
        assert (part.lines is not None) == (len(everything) > len(read))
        found += [(row.line, row.custom_id) for row in read]
    assert sorted(found) == [(n, str(n)) for n, kind in enumerate(kinds, start=1) if kind.strip()]


def test_a_slice_spans_no_more_bytes_than_allowed_whosever_rows_lie_between() -> None:
    cutter = Cutter(max_bytes=1_000, pool="image")
    assert cutter.add(line=1, byte_start=0, byte_end=10, seconds=0.0) is None
    cutter.pass_over()
    done = cutter.add(line=500, byte_start=5_000, byte_end=5_010, seconds=0.0)
    assert done == Slice(0, 0, 10, 1, 1, "image", None)
    rest = cutter.last()
    assert rest == Slice(1, 5_000, 5_010, 500, 1, "image", None)


def test_an_empty_file_has_no_slices() -> None:
    assert cut(Cutter(), []) == []


def test_defaults_keep_a_shard_small() -> None:
    assert (MAX_ROWS, MAX_BYTES) == (256, 8 * 2**20)
    assert 30 <= TARGET_SECONDS <= 120
