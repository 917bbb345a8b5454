"""Jobs under an id of one's own, and jobs that are listened to."""

from __future__ import annotations

import json

import pytest

from pressrun.exit_codes import ExitCode
from pressrun.server_sent import Message, messages
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer, job

SUBMIT = ("job", "submit", "--endpoint", "/v1/completions", "--body", "{}")


def told(event_id: int, step: int) -> str:
    data = {"stage": "denoise", "step": step, "steps": 4}
    event = {"id": str(event_id), "type": "job.progress", "data": data}
    return f"id: {event_id}\ndata: {json.dumps(event)}\n\n"


def state(name: str) -> str:
    return f'event: job\ndata: {{"state":"{name}"}}\n\n'


def test_lines_become_messages() -> None:
    text = (
        f"retry: 2000\n\n: heartbeat\n\n{state('queued')}data: no JSON\n\n"
        'id: 7\ndata:{"a":1}\n\ndata: [1]\n\ndata: [DONE]\n\ndata: {"b":2}\n\n'
    )
    assert list(messages(text.split("\n"))) == [
        Message("job", None, {"state": "queued"}),
        Message("message", "7", {"a": 1}),
        Message("message", None, None),
    ]


def test_a_job_is_listened_to_and_taken_up_where_the_stream_broke(
    connected: FakeServer, run: Run
) -> None:
    connected.streams = [
        f"retry: 2000\n\n{state('queued')}: heartbeat\n\n{state('running')}{told(5, 1)}",
        f"{state('running')}{told(6, 2)}{state('succeeded')}data: [DONE]\n\n",
    ]
    said = {"choices": [{"text": "Hello"}]}
    connected.jobs["job_1"] = [job("running"), job("succeeded", result=said)]
    ended = run("job", "watch", "job_1")
    assert (ended.code, ended.out) == (ExitCode.OK, "Hello\n")
    assert ended.err.splitlines() == [
        "job_1: queued", "job_1: running", "job_1: denoise 1/4", "job_1: denoise 2/4",
    ]  # fmt: skip
    first, second = connected.requests("GET", "/v1/jobs/job_1/events")
    assert first.headers["Accept"] == "text/event-stream"
    assert "Last-Event-ID" not in first.headers
    assert second.headers["Last-Event-ID"] == "5"


def test_without_a_stream_it_is_asked_for(connected: FakeServer, run: Run) -> None:
    connected.jobs["job_1"] = [job("queued"), job("running"), job("succeeded", result={"a": 1})]
    ended = run("job", "watch", "job_1")
    assert ended.code == ExitCode.OK
    assert ended.err.splitlines() == ["job_1: queued", "job_1: running"]


def test_an_own_id_is_put(connected: FakeServer, run: Run) -> None:
    connected.jobs["job_1"] = [job("queued")]
    ended = run(*SUBMIT, "--id", "crm:4/2", "--expires", "5m")
    assert (ended.code, ended.out) == (ExitCode.OK, "job_1\n")
    (put,) = connected.requests("PUT", "/v1/jobs/crm:4%2F2") or connected.requests(
        "PUT", "/v1/jobs/crm%3A4%2F2"
    )
    assert put.body == {"endpoint": "/v1/completions", "body": {}, "expires_in_seconds": 300}


def test_a_dry_run_is_shown(connected: FakeServer, run: Run) -> None:
    connected.jobs["job_1"] = [{"object": "job.estimate", "rows": 1}]
    ended = run(*SUBMIT, "--dry-run")
    assert (ended.code, json.loads(ended.out)["rows"]) == (ExitCode.OK, 1)
    (asked,) = connected.requests("POST", "/v1/jobs")
    assert asked.body["dry_run"] is True


@pytest.mark.parametrize("age", ["5", "0m", "5d", ""])
def test_an_age_that_is_none_is_refused(connected: FakeServer, run: Run, age: str) -> None:
    assert run(*SUBMIT, "--expires", age).code == ExitCode.USAGE
    assert connected.seen == []
