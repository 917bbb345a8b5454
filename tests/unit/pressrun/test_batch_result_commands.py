from __future__ import annotations

import json
from pathlib import Path

import pytest

from pressrun.exit_codes import ExitCode
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer, batch


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pressrun.batch_result_commands.PAUSE_SECONDS", 0.01)


def test_results_are_followed_to_the_end(connected: FakeServer, run: Run) -> None:
    connected.result_pages = [(b"1\n2\n", True), (b"", True), (b"3\n", False)]
    ended = run("batch", "results", "batch_1", "--follow", "--status", "failed")
    assert (ended.code, ended.out) == (ExitCode.OK, "1\n2\n3\n")
    asked = connected.requests("GET", "/v1/batches/batch_1/results")
    assert [one.query.get("after") for one in asked] == [None, ["a2.0.0"], ["a1.0.0"]]
    assert all(one.query["status"] == ["failed"] for one in asked)


def test_an_answer_that_breaks_off_shows_no_line_twice(connected: FakeServer, run: Run) -> None:
    connected.result_pages = [(b"one\ntwo\n", True), (b"three\n", False)]
    connected.truncations = 2
    connected.failures = [("/v1/batches/batch_1/results", 503, {})]
    ended = run("batch", "results", "batch_1", "--follow", "--output", "lines.jsonl")
    assert (ended.code, ended.out) == (ExitCode.OK, "")
    assert Path("lines.jsonl").read_bytes() == b"one\ntwo\nthree\n"


def test_without_follow_it_shows_what_is_there_and_where_to_go_on(
    connected: FakeServer, run: Run
) -> None:
    connected.result_pages = [(b"1\n", True), (b"", True)]
    ended = run("batch", "results", "batch_1")
    assert (ended.code, ended.out) == (ExitCode.OK, "1\n")
    assert "pressrun batch results batch_1 --follow --after a0.0.0" in ended.err


def test_failed_rows_are_run_again(connected: FakeServer, run: Run) -> None:
    connected.batches["batch_1"] = [batch("validating")]
    ended = run("batch", "retry", "batch_1", "--only", "all", "--window", "2h")
    assert (ended.code, ended.out) == (ExitCode.OK, "batch_2\n")
    [asked] = connected.requests("POST", "/v1/batches/batch_1/retry")
    assert asked.body == {"only": "all", "completion_window": "2h"}


def test_a_dry_run_waits_for_its_estimate(connected: FakeServer, run: Run) -> None:
    Path("rows.jsonl").write_text('{"url": "/v1/completions"}\n')
    estimate = {
        "rows": 7, "slices": 2, "input_tokens": 70, "max_output_tokens": 700,
        "cost": {"currency": "EUR", "at_most": 0.5}, "is_possible": False,
    }  # fmt: skip
    done = batch("completed", estimate=estimate, dry_run=True)
    connected.batches["batch_1"] = [batch("validating"), done]
    ended = run("batch", "submit", "rows.jsonl", "--dry-run")
    assert ended.code == ExitCode.OK
    for told in ("7 rows in 2 slices", "700", "0.5 EUR", "a pool has no worker"):
        assert told in ended.out
    assert json.loads(json.dumps(connected.requests("POST", "/v1/batches")[0].body))["dry_run"]
