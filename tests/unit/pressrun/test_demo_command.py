from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from pressrun.demo.rows import CHAT, PICTURE, demo_rows
from pressrun.exit_codes import ExitCode
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer, batch, campaign

ROWS = len(demo_rows(24))


def answers(count: int) -> bytes:
    lines = []
    for row in demo_rows(24)[:count]:
        if row.endpoint == CHAT:
            body = {
                "choices": [{"message": {"content": f"[b]answer[/b] to {row.custom_id}"}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5},
            }
        elif row.endpoint == PICTURE:
            body = {"data": [{"artifact_id": "art_picture"}], "output_format": "png"}
        else:
            body = {"artifact_id": "art_voice", "media_type": "audio/mpeg"}
        lines.append(json.dumps({"custom_id": row.custom_id, "response": {"body": body}}) + "\n")
    return "".join(lines).encode()


@pytest.fixture
def finished(connected: FakeServer) -> FakeServer:
    counts = {"total": ROWS, "completed": ROWS, "failed": 0}
    connected.batches["batch_1"] = [
        batch("in_progress"),
        batch("completed", request_counts=counts, output_file_id="file-out"),
    ]
    connected.campaigns["campaign_1"] = [campaign("running"), campaign("succeeded")]
    connected.artifacts = [{"id": "art_zip", "role": "bundle"}]
    connected.files |= {"art_picture": b"png", "art_voice": b"mp3", "art_zip": bundle()}
    return connected


def bundle() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("index.html", "<h1>a sheet</h1>")
    return data.getvalue()


def test_a_whole_demo_shows_its_results_and_writes_them_down(
    finished: FakeServer, run: Run
) -> None:
    finished.files["file-out"] = answers(ROWS)
    ended = run("demo", "--output", "out put")

    assert ended.code == ExitCode.OK, ended.err
    assert "[b]answer[/b] to ad-kettle-1" in ended.out
    assert f"{ROWS} of {ROWS} rows" in ended.out
    assert f"completed: {ROWS}/{ROWS} rows, 0 failed" in ended.err
    assert "succeeded: 4/9 steps, 0 failed" in ended.err
    names = {"input.jsonl", "output.jsonl", "errors.jsonl", "summary.md"}
    names |= {"pictures", "voice-overs", "campaign", "campaign.zip"}
    assert {path.name for path in Path("out put").iterdir()} == names
    assert Path("out put/pictures/picture-kettle.png").read_bytes() == b"png"
    assert Path("out put/voice-overs/voice-over-ferry.mp3").read_bytes() == b"mp3"
    sheet = Path("out put/campaign/index.html")
    assert sheet.read_text() == "<h1>a sheet</h1>"
    assert sheet.resolve().as_uri() in ended.out
    assert Path("out put/errors.jsonl").read_text() == ""
    assert "tokens: 240 in, 120 out" in Path("out put/summary.md").read_text()


def test_a_missing_row_is_a_failure_with_its_reason(finished: FakeServer, run: Run) -> None:
    finished.files["file-out"] = answers(ROWS - 1)
    ended = run("demo")
    assert ended.code == ExitCode.FAILED
    assert "1 rows are missing" in ended.err


def test_a_failed_row_is_a_failure_with_its_reason(finished: FakeServer, run: Run) -> None:
    error = {"message": "it broke", "code": "model_broken"}
    row = {"custom_id": demo_rows(24)[-1].custom_id, "response": None, "error": error}
    finished.batches["batch_1"][-1]["error_file_id"] = "file-err"
    finished.files |= {"file-out": answers(ROWS - 1), "file-err": json.dumps(row).encode()}
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


def test_a_campaign_that_fails_is_a_failure_with_its_reason(finished: FakeServer, run: Run) -> None:
    finished.files["file-out"] = answers(ROWS)
    error = {"message": "step 'picture 1': it broke", "code": "step_failed"}
    finished.campaigns["campaign_1"] = [campaign("failed", error=error)]
    ended = run("demo")
    assert ended.code == ExitCode.FAILED
    assert "step 'picture 1': it broke (step_failed)" in ended.err


def test_a_demo_may_leave_the_campaign_out(finished: FakeServer, run: Run) -> None:
    finished.files["file-out"] = answers(ROWS)
    assert run("demo", "--no-campaign").code == ExitCode.OK
    assert not finished.requests("POST", "/v1/campaigns")
