"""Jobs over HTTP, on a real database."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection

from api import job_objects, objects
from shared.lifecycle import working
from shared.lifecycle.working import Claim, GenerationEnd, Held
from shared.states import ShardState
from tests.integration.api_case import COMPLETION, MODEL, ApiCase, api_fixture

__all__ = ["api_fixture"]


def claim(connection: Connection, session: str) -> Claim:
    working.dispatch(connection, pool="text", window=32)
    (claimed,) = working.claim(
        connection, session_id=session, pools=["text"], max_shards=1, max_rows=1
    )
    return claimed


def finish(
    connection: Connection, session: str, held: Held, state: ShardState, **values: Any
) -> None:
    end = GenerationEnd(held, state, "0" * 64, **values)
    assert working.finish_generations(connection, session, [end]) == {held}


def succeed(connection: Connection, session: str, held: Held) -> None:
    finish(
        connection,
        session,
        held,
        ShardState.SUCCEEDED,
        result='{"id":"cmpl-1","choices":[{"text":"\\ud800 and \\u0000"}]}',
        input_tokens=3,
        output_tokens=5,
    )


def test_a_job_from_submit_to_result(api: ApiCase) -> None:
    submitted = api.post("/v1/jobs", COMPLETION | {"metadata": {"a": "ü"}, "priority": 3})
    assert submitted.status_code == 202
    job = submitted.json
    objects.Job.model_validate(job)
    assert submitted.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert api.bell.rung == ["text"]

    queued = api.get(f"/v1/jobs/{job['id']}")
    assert {**queued.json, "queue_position": None} == {**job, "queue_position": None}
    assert queued.json["queue_position"] == 0
    assert 1 <= int(queued.headers["Retry-After"]) <= 120

    with api.begin() as connection:
        session = api.open_session(connection)
        claimed = claim(connection, session)
    assert claimed.job_id == job["id"]
    running = api.get(f"/v1/jobs/{job['id']}").json
    assert running["state"] == "running"
    assert "queue_position" not in running

    with api.begin() as connection:
        succeed(connection, session, claimed.held)
    reply = api.get(f"/v1/jobs/{job['id']}")
    done = reply.json
    objects.Job.model_validate(done)
    assert "Retry-After" not in reply.headers
    assert done["state"] == "succeeded"
    assert done["progress"] == 1.0
    assert done["result"]["choices"][0]["text"] == "\ud800 and \0"
    assert done["usage"] == {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    assert done["created_at"] <= done["started_at"] + 1
    assert done["timings"]["running_seconds"] >= 0
    assert done["metadata"] == {"a": "ü"}

    events = api.get(f"/v1/jobs/{job['id']}/events").json
    job_objects.EventList.model_validate(events)
    assert [event["type"] for event in events["data"]] == ["job.succeeded"]


def test_a_failed_job_says_why(api: ApiCase) -> None:
    job_id = api.submit()
    with api.begin() as connection:
        session = api.open_session(connection)
        finish(
            connection,
            session,
            claim(connection, session).held,
            ShardState.FAILED,
            error_code="context_length_exceeded",
            error_message="too long",
            error_param="prompt",
        )
    job = api.get(f"/v1/jobs/{job_id}").json
    assert job["state"] == "failed"
    assert job["error"] == {
        "code": "context_length_exceeded",
        "message": "too long",
        "param": "prompt",
    }


def test_queue_positions_count_those_ahead(api: ApiCase) -> None:
    jobs = [api.submit(priority=5) for _ in range(3)]
    urgent = api.submit(priority=0)
    positions = {job: api.get(f"/v1/jobs/{job}").json["queue_position"] for job in [*jobs, urgent]}
    assert positions == {urgent: 0, jobs[0]: 1, jobs[1]: 2, jobs[2]: 3}


@pytest.mark.parametrize(
    ("changed", "status", "code", "param"),
    [
        ({"endpoint": "/v1/nothing"}, 400, "unsupported_endpoint", "endpoint"),
        ({"body": {"model": "absent", "prompt": "x"}}, 404, "model_not_found", "body.model"),
        ({"body": {"model": "a\0b", "prompt": "x"}}, 404, "model_not_found", "body.model"),
        ({"endpoint": "/v1/embeddings", "body": {"model": MODEL, "input": "x"}}, 404,
         "model_not_found", "body.model"),
        ({"body": {"model": MODEL}}, 400, "invalid_request", "body.prompt"),
        ({"body": {"model": MODEL, "prompt": "x", "stream": True}}, 400,
         "streaming_unsupported", "body.stream"),
        ({"body": {"model": MODEL, "prompt": "x", "tools": []}}, 400, "unsupported_parameter",
         "body.tools"),
        ({"priority": 10}, 400, "invalid_request", "priority"),
        ({"expires_in_seconds": -1}, 400, "invalid_request", "expires_in_seconds"),
    ],
)  # fmt: skip
def test_a_bad_request_names_the_field(
    api: ApiCase, changed: dict[str, Any], status: int, code: str, param: str
) -> None:
    reply = api.post("/v1/jobs", COMPLETION | changed)
    assert reply.status_code == status
    problem = reply.json
    objects.Problem.model_validate(problem)
    assert reply.content_type == "application/problem+json"
    assert (problem["error"]["code"], problem["error"]["param"]) == (code, param)
    assert problem["errors"][0]["param"] == param
    assert api.bell.rung == []


def test_a_submit_is_one_statement(api: ApiCase) -> None:
    api.submit()
    with api.count_statements() as statements:
        api.submit()
    assert len(statements) == 1


def test_a_look_is_one_statement(api: ApiCase) -> None:
    job_id = api.submit()
    api.get(f"/v1/jobs/{job_id}")  # the first one also looks at the pool, for some seconds
    with api.count_statements() as statements:
        assert api.get(f"/v1/jobs/{job_id}").status_code == 200
    assert len(statements) == 1


# --- looking -------------------------------------------------------------------------------------


def test_304_only_for_those_who_ask_and_only_while_nothing_changed(api: ApiCase) -> None:
    path = f"/v1/jobs/{api.submit()}"
    tag = api.get(path).headers["ETag"]
    assert tag.startswith('W/"')
    unchanged = api.get(path, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert unchanged.headers["ETag"] == tag
    assert api.get(path, headers={"If-None-Match": f'"other", {tag}'}).status_code == 304
    assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert api.get(path).status_code == 200
    with api.begin() as connection:
        claim(connection, api.open_session(connection))
    changed = api.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)


def test_a_running_job_keeps_its_etag_as_time_passes(api: ApiCase) -> None:
    path = f"/v1/jobs/{api.submit()}"
    with api.begin() as connection:
        claim(connection, api.open_session(connection))
    tag = api.get(path).headers["ETag"]
    time.sleep(0.01)
    assert api.get(path).headers["ETag"] == tag


def test_a_long_poll_wakes_when_the_job_ends(api: ApiCase) -> None:
    job_id = api.submit()
    with api.begin() as connection:
        session = api.open_session(connection)
        held = claim(connection, session).held
    with ThreadPoolExecutor(1) as threads:
        start = time.monotonic()
        waiting = threads.submit(api.get, f"/v1/jobs/{job_id}?wait=25")
        api.until_waiting(1)
        with api.begin() as connection:
            succeed(connection, session, held)
        reply = waiting.result()
    assert reply.json["state"] == "succeeded"
    assert time.monotonic() - start < 20


def test_a_long_poll_ends_with_its_time(api: ApiCase) -> None:
    reply = api.get(f"/v1/jobs/{api.submit()}?wait=0.05")
    assert reply.json["state"] == "queued"
    assert "Retry-After" in reply.headers


@pytest.mark.parametrize("wait", ["x", "-1", "1e9", "nan", "1" * 50, ""])
def test_a_wait_that_is_no_number_is_refused(api: ApiCase, wait: str) -> None:
    assert api.get(f"/v1/jobs/{api.submit()}?wait={wait}").status_code == 400


def test_a_list_is_walked_by_its_cursor(api: ApiCase) -> None:
    jobs = [api.submit() for _ in range(7)]
    batches = [api.submit_batch() for _ in range(3)]
    api.new_tenant()
    seen: list[str] = []
    after = ""
    for _ in range(20):
        page = api.get(f"/v1/jobs?limit=3{after}").json
        objects.JobList.model_validate(page)
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == sorted(jobs + batches, key=lambda item: item[-26:], reverse=True)
    assert [job["id"] for job in api.get("/v1/jobs?kind=batch").json["data"]] == sorted(batches)[
        ::-1
    ]
    assert len(api.get("/v1/jobs?endpoint=/v1/embeddings").json["data"]) == 0
    assert len(api.get("/v1/jobs?state=running").json["data"]) == 0
    assert len(api.get("/v1/jobs?state=queued&limit=100").json["data"]) == 10


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "after=x", "after=%00", "state=no", "kind=no",
              "endpoint=no"]
)  # fmt: skip
def test_a_list_refuses_what_it_cannot_read(api: ApiCase, query: str) -> None:
    reply = api.get(f"/v1/jobs?{query}")
    assert reply.status_code == 400
    assert reply.json["error"]["param"] == query.partition("=")[0]


# --- cancelling ----------------------------------------------------------------------------------


def test_cancelling_a_queued_job_ends_it_at_once_and_again_changes_nothing(api: ApiCase) -> None:
    path = f"/v1/jobs/{api.submit()}/cancel"
    first = api.post(path)
    assert (first.status_code, first.json["state"]) == (200, "cancelled")
    again = api.post(path)
    assert (again.status_code, again.json) == (200, first.json)


def test_cancelling_a_running_job_asks_it_to_stop(api: ApiCase) -> None:
    job_id = api.submit()
    with api.begin() as connection:
        session = api.open_session(connection)
        held = claim(connection, session).held
    first = api.post(f"/v1/jobs/{job_id}/cancel")
    assert first.status_code == 202
    assert (first.json["state"], first.json["stopping"]) == ("running", True)
    again = api.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json["stopping"]) == (200, True)
    with api.begin() as connection:
        finish(connection, session, held, ShardState.CANCELLED)
    ended = api.get(f"/v1/jobs/{job_id}").json
    assert (ended["state"], ended["stopping"]) == ("cancelled", False)


@pytest.mark.parametrize("state", [ShardState.SUCCEEDED, ShardState.FAILED])
def test_a_job_that_ended_otherwise_cannot_be_cancelled(api: ApiCase, state: ShardState) -> None:
    job_id = api.submit()
    with api.begin() as connection:
        session = api.open_session(connection)
        held = claim(connection, session).held
        finish(connection, session, held, state, result="{}", error_code="x", error_message="y")
    reply = api.post(f"/v1/jobs/{job_id}/cancel")
    assert reply.status_code == 409
    assert reply.json["error"]["code"] == "conflict"
    assert reply.headers["x-should-retry"] == "false"
