"""Which rows of a batch are to run again, and the copy of their lines."""

from __future__ import annotations

import io
import json
import random

import pytest

from worker.outputs import RowError, error_line, response_line, stopped_error
from worker.rows import RowInput
from worker.upkeep.retrying import LineSet, UnreadableErrors, copy_lines, wanted_lines

JOB = "batch_01k0"
FAILED, CRASHED, EXPIRED, CANCELLED = 2, 30, 4_000, 5
CODE_OF_AN_ENGINE = {"error": {"message": "x", "type": "x", "param": None, "code": "batch_expired"}}
ERRORS = b"".join(
    [
        response_line(
            JOB,
            RowInput(0, FAILED, "a", "/v1/x", "m", b"{}"),
            400,
            json.dumps(CODE_OF_AN_ENGINE).encode(),
        ),
        error_line(JOB, CRASHED, "b", RowError("engine_crashed", "gone")),
        error_line(JOB, EXPIRED, "c", stopped_error("expired")),
        error_line(JOB, CANCELLED, "d", stopped_error("cancelled")),
    ]
)


@pytest.mark.parametrize(
    ("only", "lines"),
    [
        ("failed", {FAILED, CRASHED}),
        ("expired", {EXPIRED}),
        ("cancelled", {CANCELLED}),
        ("all", {FAILED, CRASHED, EXPIRED, CANCELLED}),
    ],
)
def test_rows_are_told_apart_by_why_they_have_no_answer(only: str, lines: set[int]) -> None:
    pieces = [ERRORS[at : at + 11] for at in range(0, len(ERRORS), 11)]
    wanted = wanted_lines(pieces, only)
    assert {n for n in range(5_000) if n in wanted} == lines
    assert len(wanted) == len(lines)


@pytest.mark.parametrize("line", [b"{}\n", b"no\n", b'{"id":"batch_req_x"}\n', b'{"id":5}\n'])
def test_a_file_that_is_no_error_file_is_refused(line: bytes) -> None:
    with pytest.raises(UnreadableErrors):
        wanted_lines([ERRORS, line], "failed")


def test_a_line_set_is_a_set() -> None:
    dice = random.Random(1)
    lines, known = LineSet(), set()
    for _ in range(500):
        number = dice.randint(0, 2_000)
        lines.add(number)
        known.add(number)
        assert len(lines) == len(known)
    assert {n for n in range(3_000) if n in lines} == known


class Writer(io.BytesIO):
    """What a store's writer is, as far as it is written to."""


@pytest.mark.parametrize("piece", [1, 5, 1_000])
def test_lines_are_copied_as_they_are(piece: int) -> None:
    source = b'{"a": 1}\n\n{"b":\t2}\r\n{"c": 3}'
    wanted = LineSet()
    for number in (3, 4):
        wanted.add(number)
    writer = Writer()
    pieces = [source[at : at + piece] for at in range(0, len(source), piece)]
    copy_lines(pieces, wanted, writer, max_bytes=100)  # type: ignore[arg-type]
    assert writer.getvalue() == b'{"b":\t2}\r\n{"c": 3}\n'


@pytest.mark.parametrize(("source", "longest"), [(b"one\ntwo\n", 100), (b"1\n2\nlonger\n", 4)])
def test_an_input_that_has_not_these_lines_is_refused(source: bytes, longest: int) -> None:
    wanted = LineSet()
    wanted.add(3)
    with pytest.raises(UnreadableErrors):
        copy_lines([source], wanted, Writer(), max_bytes=longest)  # type: ignore[arg-type]
