from __future__ import annotations

import json
from pathlib import Path

import pytest

from pressrun.demo.rows import demo_rows
from pressrun.exit_codes import ExitCode
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer, batch


def answers(count: int) -> bytes:
    lines = []
    for row in demo_rows(24)[:count]:
        body = {
            "choices": [{"message": {"content": f"[b]answer[/b] to {row.custom_id}"}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        }
        lines.append(json.dumps({"custom_id": row.custom_id, "response": {"body": body}}) + "\n")
    return "".join(lines).encode()


@pytest.fixture
def finished(connected: FakeServer) -> FakeServer:
    counts = {"total": 24, "completed": 24, "failed": 0}
    connected.batches["batch_1"] = [
        batch("in_progress"),
        batch("completed", request_counts=counts, output_file_id="file-out"),
    ]
    return connected


def test_a_whole_demo_shows_its_results_and_writes_four_files(
    finished: FakeServer, run: Run
) -> None:
    finished.files["file-out"] = answers(24)
    ended = run("demo", "--output", "out put")

    assert ended.code == ExitCode.OK, ended.err
    assert "[b]answer[/b] to ad-kettle-1" in ended.out
    assert "24 of 24 rows" in ended.out
    assert "completed: 24/24 rows, 0 failed" in ended.err
    names = {"input.jsonl", "output.jsonl", "errors.jsonl", "summary.md"}
    assert {path.name for path in Path("out put").iterdir()} == names
    assert Path("out put/errors.jsonl").read_text() == ""
    assert "tokens: 240 in, 120 out" in Path("out put/summary.md").read_text()


def test_a_missing_row_is_a_failure_with_its_reason(finished: FakeServer, run: Run) -> None:
    finished.files["file-out"] = answers(23)
    ended = run("demo")
    assert ended.code == ExitCode.FAILED
    assert "1 rows are missing" in ended.err


def test_a_failed_row_is_a_failure_with_its_reason(finished: FakeServer, run: Run) -> None:
    error = {"message": "it broke", "code": "model_broken"}
    row = {"custom_id": demo_rows(24)[23].custom_id, "response": None, "error": error}
    finished.batches["batch_1"][-1]["error_file_id"] = "file-err"
    finished.files |= {"file-out": answers(23), "file-err": json.dumps(row).encode()}
    ended = run("demo")
    assert ended.code == ExitCode.FAILED
    assert "it broke (model_broken)" in ended.err


def test_a_rejected_batch_is_a_failure_with_its_reason(connected: FakeServer, run: Run) -> None:
    error = {"code": "model_not_found", "message": "no such model", "line": 1, "param": None}
    connected.batches["batch_1"] = [batch("failed", errors={"data": [error]})]
    ended = run("demo")
    assert ended.code == ExitCode.FAILED
    assert "no such model" in ended.err


def test_half_a_server_is_wrong_usage(run: Run) -> None:
    assert run("demo", "--url", "http://127.0.0.1:1").code == ExitCode.USAGE
    assert run("demo", "--rows", "3").code == ExitCode.USAGE
