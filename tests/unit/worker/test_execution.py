"""The story of one shard: what is booked, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.lifecycle.working import UsageLine
from shared.states import ShardState, StopReason
from shared.storage.local import LocalStore
from tests.unit.worker.claims import BODY, CHAT, answer, make_claim, make_rows
from worker.execution import ShardRun
from worker.outputs import RowError
from worker.rows import RowInput

EMBEDDINGS = "/v1/embeddings"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts", "x" * 16)


def batch_run(rows: int = 3, **fields: Any) -> ShardRun:
    return ShardRun(make_claim(1, kind="batch", **fields), "w1", make_rows(rows))


def single_run(**fields: Any) -> ShardRun:
    return ShardRun(make_claim(1, **fields), "w1", make_rows(1, batch=False))


def lines(store: LocalStore, stored: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(store.read(stored.key)).splitlines()]


# --- slices -----------------------------------------------------------------------------------


def test_a_slice_with_good_and_bad_rows(store: LocalStore) -> None:
    run = batch_run(3)
    run.take(answer(run.claim, 2))
    run.take(answer(run.claim, 0, status=429))
    assert not run.done
    run.fail_row(1, RowError("engine_crashed", "alone"))
    assert run.done
    end = run.end_slice(store)
    assert (end.state, end.rows_completed, end.rows_failed) == (ShardState.SUCCEEDED, 1, 2)
    assert end.usage == [UsageLine(CHAT, "m", 1, 3, 5)]
    (good,) = lines(store, end.output)
    assert (good["custom_id"], good["response"]["body"]) == ("row-2", {"ok": True})
    refused, crashed = lines(store, end.errors)
    assert (refused["custom_id"], refused["response"]["status_code"]) == ("row-0", 429)
    assert (crashed["custom_id"], crashed["error"]["code"]) == ("row-1", "engine_crashed")


def test_an_answer_counts_once_and_never_after_the_row_has_ended(store: LocalStore) -> None:
    run = batch_run(2)
    run.take(answer(run.claim, 0))
    run.take(answer(run.claim, 0))
    run.fail_row(0, RowError("late", "late"))
    run.fail_row(1, RowError("gone", "gone"))
    run.take(answer(run.claim, 1))
    run.take(answer(run.claim, 99))
    assert (run.completed, run.failed) == (1, 1)
    end = run.end_slice(store)
    assert len(lines(store, end.output)) == len(lines(store, end.errors)) == 1
    assert end.usage == [UsageLine(CHAT, "m", 1, 3, 5)]


def test_usage_is_kept_by_endpoint_and_model(store: LocalStore) -> None:
    rows = [
        RowInput(n, n + 1, str(n), endpoint, model, BODY)
        for n, (endpoint, model) in enumerate(
            [(CHAT, "a"), (CHAT, "b"), (EMBEDDINGS, "a"), (CHAT, "a")]
        )
    ]
    run = ShardRun(make_claim(1, kind="batch"), "w1", rows)
    for index in range(4):
        run.take(answer(run.claim, index))
    assert run.end_slice(store).usage == [
        UsageLine(CHAT, "a", 2, 6, 10),
        UsageLine(CHAT, "b", 1, 3, 5),
        UsageLine(EMBEDDINGS, "a", 1, 3, 5),
    ]


@pytest.mark.parametrize(
    ("reason", "code"),
    [(StopReason.CANCELLED, "batch_cancelled"), (StopReason.EXPIRED, "batch_expired")],
)
def test_a_slice_cut_short_keeps_what_is_finished(
    store: LocalStore, reason: StopReason, code: str
) -> None:
    run = batch_run(3)
    run.take(answer(run.claim, 1))
    run.stop_reason = reason
    run.cut()
    end = run.end_slice(store)
    assert (end.state, end.rows_completed, end.rows_failed) == (ShardState.CANCELLED, 1, 2)
    assert [line["custom_id"] for line in lines(store, end.output)] == ["row-1"]
    assert [(line["custom_id"], line["error"]["code"]) for line in lines(store, end.errors)] == [
        ("row-0", code),
        ("row-2", code),
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["good", "bad", "fail"]))))
def test_every_row_has_one_line_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, happenings: list[tuple[int, str]]
) -> None:
    run = batch_run(6)
    for index, what in happenings:
        if what == "fail":
            run.fail_row(index, RowError("x", "x"))
        else:
            run.take(answer(run.claim, index, status=200 if what == "good" else 500))
    run.cut()
    store = LocalStore(tmp_path_factory.mktemp("store") / "artifacts", "x" * 16)
    end = run.end_slice(store)
    found = [
        line["custom_id"] for stored in (end.output, end.errors) if stored
        for line in lines(store, stored)
    ]  # fmt: skip
    assert sorted(found) == [f"row-{n}" for n in range(6)]
    assert end.rows_completed + end.rows_failed == 6
    assert sum(line.rows for line in end.usage) == end.rows_completed


# --- single generations -----------------------------------------------------------------------


def test_a_single_result() -> None:
    run = single_run()
    run.take(answer(run.claim))
    end = run.end_generation()
    assert (end.state, end.result) == (ShardState.SUCCEEDED, '{"ok":true}')
    assert (end.input_tokens, end.output_tokens) == (3, 5)
    assert end.error_code is None
    assert len(end.sha256) == 64


def test_the_digest_tells_repeated_commits_from_other_ones() -> None:
    ends = []
    for body in (b'{"a":1}', b'{"a":1}', b'{"a":2}'):
        run = single_run()
        run.take(answer(run.claim, body=body))
        ends.append(run.end_generation().sha256)
    assert ends[0] == ends[1] != ends[2]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "too_long", "message": "m", "param": "messages"}, ("too_long", "m", "messages")),
        ({"message": "a\x00b"}, ("engine_error", "a\ufffdb", None)),
        ({"code": None, "message": None, "param": None}, ("engine_error", "", None)),
        ({"code": 500, "message": "half \ud800"}, ("500", "half ?", None)),
        ({}, ("engine_error", "", None)),
    ],
)
def test_a_single_error_becomes_text_that_a_database_takes(
    error: dict[str, Any], expected: tuple[str, str, str | None]
) -> None:
    run = single_run()
    run.take(answer(run.claim, status=400, body=json.dumps({"error": error}).encode()))
    end = run.end_generation()
    assert end.state == ShardState.FAILED
    assert (end.error_code, end.error_message, end.error_param) == expected
    assert end.result is None


def test_a_single_row_that_never_ran() -> None:
    run = single_run()
    run.fail_row(0, RowError("model_not_found", "no model"))
    end = run.end_generation()
    assert (end.state, end.error_code, end.error_message) == (
        ShardState.FAILED, "model_not_found", "no model",
    )  # fmt: skip


def test_a_single_generation_cut_short_is_cancelled() -> None:
    run = single_run(stop_reason=StopReason.EXPIRED)
    assert run.stop_reason == StopReason.EXPIRED
    run.cut()
    end = run.end_generation()
    assert (end.state, end.result, end.error_code) == (ShardState.CANCELLED, None, None)


# --- blame ------------------------------------------------------------------------------------


def test_a_second_crash_in_company_makes_a_suspect_and_two_alone_a_culprit() -> None:
    run = batch_run()
    assert not run.strike(0)
    assert run.strike(0)
    assert not run.solo_crash(0)
    assert run.solo_crash(0)
    assert not run.strike(1)  # each row for itself


def test_a_row_that_is_alone_from_the_start_still_gets_two_tries() -> None:
    run = batch_run(suspect=True)
    assert run.solo
    assert not run.solo_crash(0)
    assert run.solo_crash(0)


def test_an_acquitted_row_starts_with_a_clean_record() -> None:
    run = batch_run()
    run.strike(0)
    run.strike(0)
    run.clear(0)
    run.clear(1)
    assert not run.strike(0)
