"""Error codes are counted as a batch's error file is put together."""

from __future__ import annotations

import json

import pytest

from worker.outputs import RowError, error_line, response_line
from worker.rows import RowInput
from worker.upkeep.error_counts import MOST_CODES, OTHER, ErrorCounts

JOB = "batch_01k0"


def refused(code: str | None, line: int = 1) -> bytes:
    body = {"error": {"message": 'it says "code":"no"', "type": "x", "param": None, "code": code}}
    row = RowInput(0, line, f'"code":"mine-{line}"', "/v1/x", "m", b"{}")
    return response_line(JOB, row, 400, json.dumps(body).encode())


def lost(code: str) -> bytes:
    return error_line(JOB, 1, "a", RowError(code, "gone\n"))


@pytest.mark.parametrize("piece", [1, 7, 64, 100_000])
def test_lines_are_counted_however_they_are_cut(piece: int) -> None:
    data = refused("bad_prompt") * 3 + lost("engine_crashed") * 2 + refused("bad_prompt")
    counts = ErrorCounts()
    for start in range(0, len(data), piece):
        counts.feed(data[start : start + piece])
    assert counts.counts == {"bad_prompt": 4, "engine_crashed": 2}


@pytest.mark.parametrize(
    "line",
    [refused(None), b"not JSON\n", b'{"error":{"code":5}}\n', b"{}\n", b"\xff\n", b"[]\n",
     b'{"response":{"body":"no"},"error":null}\n'],
)  # fmt: skip
def test_a_line_without_a_code_counts_too(line: bytes) -> None:
    counts = ErrorCounts()
    counts.feed(line)
    assert counts.counts == {OTHER: 1}


def test_so_many_codes_are_told_apart() -> None:
    counts = ErrorCounts()
    for number in range(MOST_CODES + 5):
        counts.feed(lost(f"code_{number}"))
    counts.add("code_0", 9)
    assert counts.counts["code_0"] == 10
    assert counts.counts[OTHER] == 5
    assert len(counts.counts) == MOST_CODES + 1
