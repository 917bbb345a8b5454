"""Answers of a batch in the order of its rows, whatever the order in which they ended."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from shared.db.shards import SliceRecord
from shared.storage.local import LocalStore
from worker.upkeep.productions.answers import Answers
from worker.upkeep.productions.joining import last_words
from worker.upkeep.productions.records import (
    KEPT,
    REJECTED,
    STOPPED,
    Record,
    encoded,
    read_records,
)

SIZES = (4, 1, 7, 3)


def line(custom_id: str, *, failed: bool) -> bytes:
    message = {"message": {"content": f"text of {custom_id}\u2028"}, "finish_reason": "stop"}
    response: Any = {"status_code": 200, "request_id": "r", "body": {"choices": [message]}}
    error = None
    if failed and custom_id.endswith("1"):
        response = {"status_code": 400, "request_id": "r", "body": {"error": {"code": "no"}}}
    elif failed:
        response, error = None, {"code": "batch_expired", "message": "too late"}
    told = {"id": "x", "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(told).encode() + b"\n"


def record(ordinal: int, first: int, rows: int, output: int, errors: int) -> SliceRecord:
    return SliceRecord(
        ordinal, "succeeded", 0, 0, first, rows, None, 0, 0,
        None, None, output, None, None, errors, None, None,
    )  # fmt: skip


def test_every_row_finds_its_own(tmp_path: Path) -> None:
    """Slices lie one behind the other in two files; every third row is in the second."""
    store, draw = LocalStore(tmp_path, "k" * 32), random.Random(1)
    files: tuple[list[bytes], list[bytes]] = ([], [])
    slices: list[SliceRecord] = []
    first = 1
    for ordinal, rows in enumerate(SIZES):
        ids = [f"{number}.0.0.{number % 2}" for number in range(first, first + rows)]
        draw.shuffle(ids)
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        for custom_id in ids:
            failed = int(custom_id.split(".")[0]) % 3 == 0
            parts[failed].append(line(custom_id, failed=failed))
        for place in (0, 1):
            files[place].extend(parts[place])
        sizes = [len(b"".join(part)) for part in parts]
        slices.append(record(ordinal, first, rows, *sizes))
        first += rows
    for key, data in zip(("out", "errors"), files, strict=True):
        store.put_bytes(key, b"".join(data), media_type="application/jsonl")

    answers = Answers(store, slices, "out", "errors")
    for number in range(1, sum(SIZES) + 1):
        custom_id = f"{number}.0.0.{number % 2}"
        answer = answers.take(custom_id)
        assert answer is not None
        if number % 3:
            assert answer.chat() == (f"text of {custom_id}\u2028", "stop")
        else:
            assert answer.code == ("no" if number % 2 else "batch_expired")


def test_a_batch_without_results_answers_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "k" * 32)

    assert Answers(store, [], None, None).take("1.0.0.0") is None


def test_the_last_round_that_said_something_counts() -> None:
    first = [Record(row, 0, 0, 0, verdict=KEPT if row == 1 else REJECTED) for row in (1, 2, 3)]
    second = [Record(2, 0, 0, 0, verdict=KEPT), Record(3, 0, 0, 0, verdict=STOPPED)]

    found = [one.verdict for one in last_words([iter(first), iter(second)])]

    assert found == [KEPT, KEPT, REJECTED]


def test_records_are_read_as_they_were_written() -> None:
    written = Record(7, 1, 2, 3, texts={"draft": "a\nb\0"}, text="é\u2028", verdict=REJECTED)
    chunks = [bytes([byte]) for byte in encoded(written) + encoded(written.again())]

    assert list(read_records(chunks)) == [written, Record(7, 1, 2, 3)]
