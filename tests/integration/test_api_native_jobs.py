"""The job API for partners who poll: ids of their own, preferences, versions, many at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import text

from api import job_objects, objects
from shared.db.models import sync_catalog
from shared.ids import new_job_id
from shared.models_catalog import ModelEntry, Price
from shared.states import ShardState
from tests.integration.api_case import COMPLETION, MODEL, ApiCase, api_fixture
from tests.integration.test_api_jobs import claim, finish, succeed

__all__ = ["api_fixture"]

RESULT = {"id": "cmpl-1", "choices": [{"text": "\ud800 and \0"}]}


def put(api: ApiCase, name: str, headers: dict[str, str] | None = None, **changed: Any) -> Any:
    client = api.app.test_client()
    return client.put(
        f"/v1/jobs/{name}", json=COMPLETION | changed, headers=api.key | (headers or {})
    )


def run_one(api: ApiCase, *, seconds: float = 0.0) -> None:
    """A worker that takes the next job and has it done so much later."""
    with api.begin() as connection:
        session = api.open_session(connection)
        claimed = claim(connection, session)
    time.sleep(seconds)
    with api.begin() as connection:
        succeed(connection, session, claimed.held)


# --- ids of the caller's own ----------------------------------------------------------------------


def test_putting_is_done_once_and_answered_again(api: ApiCase) -> None:
    first = put(api, "crm:42")
    assert first.status_code == 202
    job = first.json
    objects.Job.model_validate(job)
    assert job["client_id"] == "crm:42"
    assert job["id"].startswith("job_")
    assert first.headers["Location"] == job["status_url"] == f"/v1/jobs/{job['id']}"
    again = put(api, "crm:42")
    assert (again.status_code, again.json["id"]) == (200, job["id"])
    other = put(api, "crm:42", priority=1)
    assert (other.status_code, other.json["error"]["code"]) == (422, "idempotency_mismatch")
    assert other.json["error"]["param"] == "client_id"
    assert len(api.get("/v1/jobs").json["data"]) == 1
    assert api.get("/v1/jobs").json["data"][0]["client_id"] == "crm:42"


def test_ten_at_once_make_one_job(api: ApiCase) -> None:
    together = Barrier(10)

    def race(_: int) -> Any:
        together.wait()
        return put(api, "same")

    with ThreadPoolExecutor(10) as threads:
        replies = list(threads.map(race, range(10)))
    assert sorted(reply.status_code for reply in replies) == [200] * 9 + [202]
    assert len({reply.json["id"] for reply in replies}) == 1
    with api.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 1
        assert connection.execute(text("SELECT count(*) FROM shards")).scalar() == 1


def test_an_own_id_stands_for_ours_everywhere(api: ApiCase) -> None:
    job_id = put(api, "a.b_c-d").json["id"]
    for path in ("", "/events", "/artifacts", "/steps", "/result"):
        assert api.get(f"/v1/jobs/a.b_c-d{path}").status_code in {200, 202}, path
    assert api.get("/v1/jobs/a.b_c-d").json["id"] == job_id
    polled = api.post("/v1/jobs/poll", {"ids": ["a.b_c-d"]}).json
    assert [job["id"] for job in polled["data"]] == [job_id]
    cancelled = api.post("/v1/jobs/a.b_c-d/cancel")
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")


def test_own_ids_are_the_tenants(api: ApiCase) -> None:
    mine = put(api, "x").json["id"]
    other = api.new_tenant()
    for method, path in [("get", ""), ("get", "/events"), ("get", "/result"), ("post", "/cancel"),
                         ("get", "/artifacts"), ("get", "/steps")]:  # fmt: skip
        call = getattr(api.client, method)
        assert call(f"/v1/jobs/x{path}", headers=other).status_code == 404
    theirs = put(api, "x", headers=other)
    assert (theirs.status_code, theirs.json["id"] != mine) == (202, True)


@pytest.mark.parametrize(
    "name",
    ["job_1", "batch_x", "ftjob-1", "video_", "job_" + "0" * 26, "other_" + "0" * 26, ".x", "-x",
     "a" * 65, "ü", "a%20b", "a%00b", "a@b"],
)  # fmt: skip
def test_other_names_are_refused(api: ApiCase, name: str) -> None:
    reply = put(api, name)
    assert reply.status_code == 400
    assert reply.json["error"]["param"] == "client_id"
    assert api.get(f"/v1/jobs/{name}").status_code == 404


def test_a_bad_body_makes_nothing_and_leaves_the_id_free(api: ApiCase) -> None:
    assert put(api, "x", body={"model": MODEL}).status_code == 400
    assert put(api, "x").status_code == 202


# --- preferences and deadlines --------------------------------------------------------------------


def test_who_prefers_to_wait_gets_the_result(api: ApiCase) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(
            api.app.test_client().post,
            "/v1/jobs",
            json=COMPLETION,
            headers=api.key | {"Prefer": "wait=60"},
        )
        api.until_waiting(1)
        run_one(api)
        reply = waiting.result()
    assert reply.status_code == 200
    assert reply.headers["Preference-Applied"] == "wait=60"
    assert reply.headers["Location"] == reply.json["status_url"]
    assert (reply.json["state"], reply.json["result"]) == ("succeeded", RESULT)
    assert (reply.json["succeeded"], reply.json["failed"]) == (1, 0)


def test_who_waits_in_vain_or_not_at_all_gets_a_202(api: ApiCase) -> None:
    waited = put(api, "x", headers={"Prefer": "respond-async, wait=1"})
    assert waited.status_code == 202
    assert waited.headers["Preference-Applied"] == "wait=1"
    assert waited.json["state"] == "queued"
    assert waited.json["queue_position"] == 0
    at_once = api.post("/v1/jobs", COMPLETION, {"Prefer": "respond-async"})
    assert at_once.status_code == 202
    assert at_once.headers["Preference-Applied"] == "respond-async"
    plain = api.post("/v1/jobs", COMPLETION)
    assert "Preference-Applied" not in plain.headers
    assert plain.headers["Retry-After"] == "1"


def test_nobody_waits_where_there_is_no_place(api: ApiCase) -> None:
    waiter = api.services.waiter
    tenants = ["ten_x"] * 9 + ["ten_y"] * 3
    places = [waiter.place(tenant) for tenant in tenants]
    for place in places:
        place.__enter__()
    start = time.monotonic()
    reply = api.post("/v1/jobs", COMPLETION, {"Prefer": "wait=60"})
    assert (reply.status_code, time.monotonic() - start < 30) == (202, True)
    assert "Preference-Applied" not in reply.headers
    for place in places:
        place.__exit__(None, None, None)


@pytest.mark.parametrize("by", ["header", "moment", "seconds"])
def test_deadlines(api: ApiCase, by: str) -> None:
    body = {"moment": {"expires_at": time.time() + 3_600}, "seconds": {"expires_in_seconds": 3_600}}
    headers = {"Cancel-After": "1h"} if by == "header" else {}
    job = api.post("/v1/jobs", COMPLETION | body.get(by, {}), headers).json
    assert abs(job["expires_at"] - job["created_at"] - 3_600) < 120
    stored = api.get(job["status_url"]).json
    assert abs(stored["expires_at"] - job["expires_at"]) <= 1


def test_a_bad_deadline_is_refused(api: ApiCase) -> None:
    reply = api.post("/v1/jobs", COMPLETION, {"Cancel-After": "soon"})
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "Cancel-After")
    reply = api.post("/v1/jobs", COMPLETION | {"expires_at": "yesterday"})
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "expires_at")


# --- polling --------------------------------------------------------------------------------------


def test_a_look_after_a_version_is_answered_as_soon_as_there_is_a_newer_one(api: ApiCase) -> None:
    job = api.get(f"/v1/jobs/{api.submit()}").json
    path = job["status_url"]
    at_once = api.get(f"{path}?wait=30&after_version={job['version'] - 1}")
    assert at_once.json["version"] == job["version"]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(api.get, f"{path}?wait=30&after_version={job['version']}")
        api.until_waiting(1)
        with api.begin() as connection:
            session = api.open_session(connection)
            held = claim(connection, session).held
        reply = waiting.result().json
    assert (reply["state"], reply["version"] > job["version"]) == ("running", True)
    with api.begin() as connection:
        succeed(connection, session, held)
    ended = api.get(f"{path}?wait=30&after_version={2**50}").json
    assert ended["state"] == "succeeded"
    assert api.get(f"{path}?wait=1&after_version=x").status_code == 400


def test_unchanged_is_one_narrow_statement(api: ApiCase) -> None:
    path = f"/v1/jobs/{api.submit()}"
    first = api.get(path)
    with api.count_statements() as statements:
        reply = api.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (reply.status_code, len(statements)) == (304, 1)
    assert "result" not in statements[0]
    assert "ready_seq" not in statements[0]
    assert 1 <= int(reply.headers["Retry-After"]) <= 60
    assert reply.headers["ETag"] == first.headers["ETag"]
    api.submit(priority=0)
    passed = api.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert passed.status_code == 304  # somebody else's turn is no change of this job
    assert api.get(path).json["queue_position"] == 1
    run_one(api)
    run_one(api)
    done = api.get(path)
    assert "Retry-After" not in done.headers
    again = api.get(path, headers={"If-None-Match": done.headers["ETag"]})
    assert (again.status_code, "Retry-After" in again.headers) == (304, False)


def test_many_jobs_are_polled_in_one_statement(api: ApiCase) -> None:
    mine = [api.submit() for _ in range(3)] + [put(api, f"c{n}").json["id"] for n in range(2)]
    key, api.key = api.key, api.new_tenant()
    theirs = api.submit()
    api.key = key
    names = [*mine[:3], "c0", "c1", theirs, "c2", "a\0b", "", *(new_job_id() for _ in range(491))]
    assert len(names) == 500
    api.post("/v1/jobs/poll", {"ids": ["x"]})
    with api.count_statements() as statements:
        reply = api.post("/v1/jobs/poll", {"ids": names})
    assert len(statements) == 1
    poll = reply.json
    job_objects.JobPoll.model_validate(poll)
    assert {job["id"] for job in poll["data"]} == set(mine)
    assert poll["missing"] == names[5:]
    assert poll["unchanged"] == []


def test_polling_after_versions_waits_for_the_first_that_went_on(api: ApiCase) -> None:
    first = put(api, "first").json["id"]
    second = api.submit()
    versions = {"first": 1, second: 1}
    asked = {"ids": ["first", second, "none"], "after_versions": versions}
    quiet = api.post("/v1/jobs/poll", asked | {"wait": 0.05}).json
    assert quiet["data"] == []
    assert set(quiet["unchanged"]) == {"first", second}
    assert quiet["missing"] == ["none"]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(
            api.app.test_client().post,
            "/v1/jobs/poll",
            json=asked | {"wait": 30},
            headers=api.key,
        )
        api.until_waiting(1)
        with api.begin() as connection:
            claim(connection, api.open_session(connection))
        poll = waiting.result().json
    (moved,) = poll["data"]
    assert (moved["id"], moved["state"]) == (first, "running")
    assert poll["unchanged"] == [second]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "ids"),
        ({"ids": []}, "ids"),
        ({"ids": ["x"] * 501}, "ids"),
        ({"ids": [1]}, "ids.0"),
        ({"ids": ["x"], "after_versions": {"x": -1}}, "after_versions.x"),
        ({"ids": ["x"], "after_versions": {"x": "1"}}, "after_versions.x"),
        ({"ids": ["x"], "wait": -1}, "wait"),
        ({"ids": ["x"], "more": 1}, "more"),
    ],
)
def test_a_bad_poll_names_the_field(api: ApiCase, body: dict[str, Any], param: str) -> None:
    reply = api.post("/v1/jobs/poll", body)
    assert (reply.status_code, reply.json["error"]["param"]) == (400, param)


# --- results --------------------------------------------------------------------------------------


def test_a_result_alone(api: ApiCase) -> None:
    job = put(api, "x").json
    early = api.get(job["result_url"])
    assert (early.status_code, early.json["state"]) == (202, "queued")
    assert "Retry-After" in early.headers
    run_one(api)
    assert api.get(job["result_url"]).json == RESULT
    assert api.get("/v1/jobs/x/result?wait=1").json == RESULT


@pytest.mark.parametrize(
    ("code", "param", "status"),
    [("context_length_exceeded", "prompt", 400), ("engine_crashed", None, 409)],
)
def test_a_failed_jobs_result_is_its_error(
    api: ApiCase, code: str, param: str | None, status: int
) -> None:
    job_id = api.submit()
    with api.begin() as connection:
        session = api.open_session(connection)
        held = claim(connection, session).held
        finish(connection, session, held, ShardState.FAILED, error_code=code,
               error_message="no", error_param=param)  # fmt: skip
    reply = api.get(f"/v1/jobs/{job_id}/result")
    assert (reply.status_code, reply.json["error"]["code"]) == (status, code)
    assert reply.json["error"]["param"] == param
    assert reply.headers["x-should-retry"] == "false"
    shown = api.get(f"/v1/jobs/{job_id}").json
    assert (shown["succeeded"], shown["failed"]) == (0, 1)


def test_a_cancelled_job_has_no_result(api: ApiCase) -> None:
    job_id = api.submit()
    api.post(f"/v1/jobs/{job_id}/cancel")
    assert api.get(f"/v1/jobs/{job_id}/result").status_code == 409
    assert api.get("/v1/jobs/nobody/result").status_code == 404


# --- estimates ------------------------------------------------------------------------------------


def test_estimates_come_from_what_the_pool_did_and_from_nothing_else(api: ApiCase) -> None:
    api.services.estimator._cache_seconds = 0.0
    path = f"/v1/jobs/{api.submit()}"
    assert not {"estimated_start", "eta_seconds"} & set(api.get(path).json)
    for _ in range(3):
        api.submit(priority=0)
        run_one(api, seconds=0.02)
    job = api.get(path).json
    assert abs(job["estimated_start"] - time.time()) < 60
    assert 1 <= job["eta_seconds"] < 60
    with api.begin() as connection:
        connection.execute(text("UPDATE sessions SET draining = true"))
    assert not {"estimated_start", "eta_seconds"} & set(api.get(path).json)


# --- dry runs -------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(api: ApiCase) -> None:
    body = {"model": MODEL, "prompt": "x" * 400, "max_tokens": 50, "n": 2}
    reply = api.post("/v1/jobs", {**COMPLETION, "body": body, "dry_run": True})
    assert reply.status_code == 200
    told = reply.json
    job_objects.JobEstimate.model_validate(told)
    assert (told["rows"], told["input_tokens"], told["max_output_tokens"]) == (1, 100, 100)
    assert not {"output_tokens", "cost", "estimated_start"} & set(told)
    assert told["is_possible"] is False
    assert put(api, "x", dry_run=True).status_code == 200
    assert api.get("/v1/jobs").json["data"] == []
    assert api.bell.rung == []
    bad = api.post("/v1/jobs", {**COMPLETION, "body": {"model": MODEL}, "dry_run": True})
    assert (bad.status_code, bad.json["error"]["param"]) == (400, "body.prompt")


def test_a_dry_run_knows_prices_and_what_such_calls_took(api: ApiCase) -> None:
    price = Price(currency="EUR", input_per_million=1.0, output_per_million=2.0)
    with api.begin() as connection:
        entry = ModelEntry(id=MODEL, engine="fake", endpoints=["/v1/completions"], price=price)
        sync_catalog(connection, [entry])
    api.services.models._recent.clear()
    for _ in range(5):
        api.submit()
        run_one(api, seconds=0.001)
    told = api.post(
        "/v1/jobs", {**COMPLETION, "body": COMPLETION["body"] | {"max_tokens": 9}, "dry_run": True}
    ).json
    job_objects.JobEstimate.model_validate(told)
    assert (told["output_tokens"], told["max_output_tokens"]) == (5, 9)
    inputs = told["input_tokens"]
    assert told["cost"]["currency"] == "EUR"
    assert told["cost"]["expected"] == pytest.approx((inputs + 2 * 5) / 1e6)
    assert told["cost"]["at_most"] == pytest.approx((inputs + 2 * 9) / 1e6)
    assert told["is_possible"] is True
    assert abs(told["estimated_start"] - time.time()) < 60
