from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest

from pressrun.exit_codes import ExitCode
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import KEY, FakeServer, batch, job, serve

ROW = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}}


@pytest.fixture
def rows() -> Path:
    path = Path("rows.jsonl")
    path.write_text(json.dumps(ROW) + "\n")
    return path


def test_submit_uploads_the_file_and_creates_the_batch(
    connected: FakeServer, run: Run, rows: Path
) -> None:
    connected.batches["batch_1"] = [batch("validating")]
    ended = run("batch", "submit", str(rows), "--window", "2h", "--metadata", "who=me=you")

    assert (ended.code, ended.out) == (ExitCode.OK, "batch_1\n")
    [upload] = connected.requests("POST", "/v1/files")
    assert b'name="purpose"\r\n\r\nbatch' in upload.body
    assert b'filename="rows.jsonl"' in upload.body
    assert rows.read_bytes() in upload.body
    [create] = connected.requests("POST", "/v1/batches")
    assert create.body == {
        "endpoint": "/v1/completions",
        "completion_window": "2h",
        "metadata": {"who": "me=you"},
        "input_file_id": "file-1",
    }


def test_watching_downloads_what_the_batch_made(
    connected: FakeServer, run: Run, rows: Path
) -> None:
    done = {"total": 2, "completed": 1, "failed": 1}
    connected.files = {"file-out": b"x" * 300_000, "file-err": b"[bold]broken[/bold]\n"}
    connected.batches["batch_1"] = [
        batch("validating"),
        batch("in_progress"),
        batch(
            "completed",
            request_counts=done,
            output_file_id="file-out",
            error_file_id="file-err",
        ),
    ]
    connected.truncations = 1
    ended = run("batch", "submit", str(rows), "--output", "a/b")

    assert ended.code == ExitCode.OK
    assert Path("a/b/output.jsonl").read_bytes() == connected.files["file-out"]
    assert Path("a/b/errors.jsonl").read_bytes() == connected.files["file-err"]
    assert sorted(path.name for path in Path("a/b").iterdir()) == ["errors.jsonl", "output.jsonl"]
    assert "1 of 2 rows failed" in ended.err
    assert "in_progress: 0/2 rows" in ended.err


def test_a_download_that_keeps_breaking_off_leaves_nothing(connected: FakeServer, run: Run) -> None:
    connected.files = {"file-out": b"x" * 100_000}
    connected.batches["batch_1"] = [batch("completed", output_file_id="file-out")]
    connected.truncations = 99
    ended = run("batch", "download", "batch_1", "--output", "here")

    assert ended.code == ExitCode.UNREACHABLE
    assert list(Path("here").iterdir()) == []


def test_the_key_does_not_follow_a_redirect_to_another_server(
    connected: FakeServer, run: Run
) -> None:
    connected.files = {"file-out": b"data"}
    connected.batches["batch_1"] = [batch("completed", output_file_id="file-out")]
    with serve(FakeServer(files=connected.files)) as bucket:
        connected.downloads_at = bucket.url
        assert run("batch", "download", "batch_1").code == ExitCode.OK
    assert Path("output.jsonl").read_bytes() == b"data"
    [fetched] = bucket.requests("GET", "/v1/downloads/file-out")
    assert "Authorization" not in fetched.headers


@pytest.mark.parametrize(
    ("last", "code", "words"),
    [
        (
            batch(
                "failed",
                errors={
                    "data": [
                        {
                            "code": "duplicate_custom_id",
                            "message": "twice",
                            "line": 7,
                            "param": None,
                        }
                    ]
                },
            ),
            ExitCode.FAILED,
            "line 7: twice (duplicate_custom_id)",
        ),
        (batch("expired"), ExitCode.FAILED, "ended expired"),
        (batch("cancelled"), ExitCode.FAILED, "ended cancelled"),
        (
            batch("completed", request_counts={"total": 2, "completed": 0, "failed": 2}),
            ExitCode.FAILED,
            "all 2 rows",
        ),
        (
            batch("completed", request_counts={"total": 2, "completed": 2, "failed": 0}),
            ExitCode.OK,
            "",
        ),
    ],
)
def test_the_exit_code_is_the_batchs_fate(
    connected: FakeServer, run: Run, last: dict[str, object], code: ExitCode, words: str
) -> None:
    connected.batches["batch_1"] = [batch("in_progress"), last]
    ended = run("batch", "watch", "batch_1")
    assert ended.code == code
    assert words in ended.err


def test_json_is_all_that_stdout_carries(connected: FakeServer, run: Run, rows: Path) -> None:
    final = batch("completed", request_counts={"total": 2, "completed": 2, "failed": 0})
    connected.batches["batch_1"] = [batch("in_progress"), final]
    assert json.loads(run("batch", "watch", "batch_1", "--json").out) == final
    assert json.loads(run("batch", "list", "--json").out) == [final]
    assert json.loads(run("batch", "show", "batch_1", "--json").out) == final
    assert json.loads(run("batch", "cancel", "batch_1", "--json").out) == final
    connected.jobs["job_1"] = [job("succeeded", result={"a": 1})]
    assert json.loads(run("job", "watch", "job_1", "--json").out)["result"] == {"a": 1}


def test_lists_walk_every_page(connected: FakeServer, run: Run) -> None:
    connected.models = [{"id": name, "owned_by": "me"} for name in ("one", "two", "three")]
    ended = run("models", "list")
    assert [line.split()[0] for line in ended.out.splitlines()] == ["id", "one", "two", "three"]


@pytest.mark.parametrize("form", ["text", "@file", "-"])
def test_a_jobs_body_comes_from_anywhere(
    connected: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    body = '{"model": "fake", "prompt": "hä"}'
    Path("body.json").write_text(body)
    monkeypatch.setattr("sys.stdin", StringIO(body))
    source = {"text": body, "@file": "@body.json", "-": "-"}[form]
    connected.jobs["job_1"] = [job("queued")]
    ended = run("job", "submit", "--endpoint", "/v1/completions", "--body", source)

    assert (ended.code, ended.out) == (ExitCode.OK, "job_1\n")
    [create] = connected.requests("POST", "/v1/jobs")
    assert create.body == {
        "endpoint": "/v1/completions",
        "body": {"model": "fake", "prompt": "hä"},
    }
    assert create.headers["Idempotency-Key"]


def test_a_watched_job_prints_what_it_says(connected: FakeServer, run: Run) -> None:
    said = {"choices": [{"message": {"content": "[red]Hello[/red] :smile:"}}]}
    connected.jobs["job_1"] = [job("queued"), job("running"), job("succeeded", result=said)]
    ended = run("job", "watch", "job_1")
    assert (ended.code, ended.out) == (ExitCode.OK, "[red]Hello[/red] :smile:\n")
    assert connected.requests("GET", "/v1/jobs/job_1")[0].query == {"wait": ["20"]}


def test_a_failed_job_fails_the_command(connected: FakeServer, run: Run) -> None:
    error = {"code": "model_broken", "message": "it broke", "param": None}
    connected.jobs["job_1"] = [job("failed", error=error)]
    ended = run("job", "watch", "job_1")
    assert (ended.code, ended.out) == (ExitCode.FAILED, "")
    assert ended.err == "pressrun: job_1 ended failed: it broke (model_broken)\n"


def test_keys_are_made_for_a_tenant_by_name(connected: FakeServer, run: Run) -> None:
    connected.tenants = [{"id": f"ten_{n}", "name": n} for n in ("default", "other")]
    ended = run("keys", "create", "--tenant", "other", "--name", "ci", "--days", "2")
    assert (ended.code, ended.out) == (ExitCode.OK, "pr_live_new\n")
    [create] = connected.requests("POST", "/v1/admin/tenants/ten_other/keys")
    assert create.body == {"name": "ci", "expires_in_seconds": 172_800}
    assert run("keys", "revoke", "key_9").out == "revoked key_9\n"
    assert run("tenants", "create", "new").out == "ten_new\n"
    assert run("keys", "list", "--tenant", "nobody").code == ExitCode.REFUSED


def test_failures_have_their_own_exit_codes(
    connected: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("batch", "show", "batch_9").code == ExitCode.REFUSED
    assert run("batch", "submit", "missing.jsonl").code == ExitCode.USAGE
    Path("empty.jsonl").write_text("")
    assert run("batch", "submit", "empty.jsonl").code == ExitCode.USAGE
    assert run("job", "submit", "--endpoint", "/x", "--body", "{").code == ExitCode.USAGE
    assert run("job", "submit", "--endpoint", "/x", "--body", "@none").code == ExitCode.USAGE
    assert run("batch", "list", "--url", "http://127.0.0.1:1").code == ExitCode.UNREACHABLE
    assert run("batch", "list", "--url", "ftp://127.0.0.1").code == ExitCode.USAGE
    monkeypatch.setenv("PRESSRUN_API_KEY", "wrong")
    ended = run("batch", "list")
    assert (ended.code, ended.out) == (ExitCode.AUTH, "")
    assert ended.err == "pressrun: not authorised: it is invalid_api_key\n"


def test_a_busy_server_is_asked_again_but_not_for_ever(connected: FakeServer, run: Run) -> None:
    connected.failures = [("/v1/models", 503, {"Retry-After": "1"})] * 2
    assert run("models", "list").code == ExitCode.OK
    connected.failures = [("/v1/models", 503, {})] * 10
    assert run("models", "list").code == ExitCode.UNREACHABLE
    assert connected.failures


def test_ctrl_c_leaves_the_batch_running_and_says_so(
    connected: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    connected.batches["batch_1"] = [batch("in_progress")]
    monkeypatch.setattr("time.sleep", interrupt)
    ended = run("batch", "watch", "batch_1")
    assert ended.code == ExitCode.INTERRUPTED
    assert "the batch goes on: pressrun batch watch batch_1" in ended.err
    assert connected.requests("POST", "/v1/batches/batch_1/cancel") == []


def test_a_proxy_is_not_asked_for_this_machine(
    connected: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert run("models", "list").code == ExitCode.OK


def test_a_local_server_needs_no_options(server: FakeServer, run: Run) -> None:
    Path(".pressrun").mkdir()
    assert run("models", "list").code == ExitCode.USAGE
    Path(".pressrun/url").write_text(f"{server.url}\n")
    Path(".pressrun/api-key").write_text(f"{KEY}\n")
    assert run("models", "list").code == ExitCode.OK
    ended = run("models", "list", "--url", "https://example.org")
    assert ended.code == ExitCode.USAGE
    assert "PRESSRUN_API_KEY" in ended.err
