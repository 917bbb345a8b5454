"""Requests that a client sends again by itself make one thing; so do those with one key."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, text
from werkzeug.test import TestResponse

from api.app import EXTENSION, create_app
from api.submitting import submit
from shared.db.idempotency import CLAIM_SECONDS, Claim, claim_key
from shared.db.models import sync_catalog
from shared.models_catalog import ModelEntry
from tests.integration.api_case import COMPLETION, MODEL, ApiCase, api_fixture
from tests.integration.media_case import png

__all__ = ["api_fixture"]

FIRST = {"x-stainless-retry-count": "0"}
RETRY = {"x-stainless-retry-count": "1"}
KEY = {"Idempotency-Key": "k1"}
HOOK = {"name": "x", "url": "https://example.com/hook", "event_types": ["batch.completed"]}


def count(api: ApiCase, table: str) -> Any:
    with api.begin() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()


def fake(api: ApiCase) -> str:
    """A model that serves everything."""
    with api.begin() as connection:
        sync_catalog(connection, [ModelEntry(id="fake", engine="fake")])
    return "fake"


# --- what a stock client's retry finds -----------------------------------------------------------


def test_a_retry_gets_the_first_job_and_another_first_does_not(api: ApiCase) -> None:
    first = api.post("/v1/jobs", COMPLETION, headers=FIRST)
    assert first.status_code == 202
    assert api.post("/v1/jobs", COMPLETION, headers=FIRST).json["id"] != first.json["id"]
    newest = api.post("/v1/jobs", COMPLETION, headers=FIRST).json["id"]
    again = api.post("/v1/jobs", COMPLETION, headers=RETRY)
    assert (again.status_code, again.json["id"]) == (200, newest)
    assert count(api, "jobs") == 3


def test_a_retry_of_what_was_never_accepted_makes_it_once(api: ApiCase) -> None:
    made = api.post("/v1/jobs", COMPLETION, headers=RETRY)
    assert made.status_code == 202
    again = api.post("/v1/jobs", COMPLETION, headers={"x-stainless-retry-count": "2"})
    assert (again.status_code, again.json["id"]) == (200, made.json["id"])


@pytest.mark.parametrize("other", ["body", "route", "key", "tenant", "late", "plain", "deleted"])
def test_what_differs_is_another_request(api: ApiCase, other: str) -> None:
    body = {"input_file_id": api.upload().json["id"], "endpoint": "/v1/completions",
            "completion_window": "24h"}  # fmt: skip
    first = api.post("/v1/batches", body, headers=FIRST).json["id"]
    if other == "body":
        retried = api.post("/v1/batches", body | {"metadata": {"a": "b"}}, headers=RETRY)
    elif other == "route":
        retried = api.post("/v1/jobs", body, headers=RETRY)
    elif other == "key":
        with api.begin() as connection:
            tenant = connection.execute(text("SELECT id FROM tenants")).scalar()
        admin = {"Authorization": f"Bearer {api.settings.admin_key.get_secret_value()}"}  # type: ignore[union-attr]
        made = api.client.post(f"/v1/admin/tenants/{tenant}/keys", headers=admin).json["key"]
        own = {"Authorization": f"Bearer {made}"}
        retried = api.post("/v1/batches", body, headers=RETRY | own)
    elif other == "tenant":
        retried = api.post("/v1/batches", body, headers=RETRY | api.new_tenant())
    elif other == "plain":
        retried = api.post("/v1/batches", body, headers={"x-stainless-retry-count": "one"})
    else:
        column = "created_at" if other == "late" else "deleted_at"
        with api.begin() as connection:
            connection.execute(
                text(f"UPDATE jobs SET {column} = clock_timestamp() - interval '11 minutes'")
            )
        retried = api.post("/v1/batches", body, headers=RETRY)
    assert retried.json.get("id") != first
    expected = {"route": 400, "tenant": 404}.get(other, 200)
    assert retried.status_code == expected, retried.json


def multipart(api: ApiCase, path: str, fields: dict[str, Any], headers: dict[str, str]) -> Any:
    form = {
        name: (io.BytesIO(value), f"{name}.bin") if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
    return api.client.post(path, data=form, headers=api.key | headers)


def submissions(api: ApiCase) -> dict[str, Any]:
    """Every kind of thing that a POST makes: its path, and its body, as a form if it has files."""
    model = fake(api)
    rows = api.upload().json["id"]
    examples = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
    tuning = api.upload(examples * 12, purpose="fine-tune").json["id"]
    upload = {"filename": "a.jsonl", "purpose": "batch", "bytes": 3, "mime_type": "text/plain"}
    part = f"/v1/uploads/{api.post('/v1/uploads', upload).json['id']}/parts"
    chat = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    return {
        "job": ("/v1/jobs", {"endpoint": "/v1/chat/completions", "body": chat}),
        "batch": ("/v1/batches", {"input_file_id": rows, "endpoint": "/v1/completions",
                                  "completion_window": "24h"}),
        "file": ("/v1/files", {"purpose": "batch", "file": b"{}\n"}),
        "upload": ("/v1/uploads", upload),
        "part": (part, {"data": b"abc"}),
        "tuning": ("/v1/fine_tuning/jobs", {"model": model, "training_file": tuning}),
        "evaluation": ("/v1/evaluations", {"models": [model], "file": tuning, "metric": "loss"}),
        "video": ("/v1/videos", {"model": model, "prompt": "x", "seconds": "1"}),
        "picture video": ("/v1/videos", {"model": model, "prompt": "x", "seconds": "1",
                                         "input_reference": png(16, 16)}),
        "import": ("/v1/models/import", {"suffix": "mine", "file": b"PK"}),
        "hook": ("/v1/webhook_endpoints", HOOK),
        "signing": ("/v1/webhook_signing_secret/rotate", {}),
    }  # fmt: skip


def send(api: ApiCase, what: tuple[str, dict[str, Any]], headers: dict[str, str]) -> TestResponse:
    path, body = what
    if any(isinstance(value, bytes) for value in body.values()):
        reply: TestResponse = multipart(api, path, body, headers)
        return reply
    return api.post(path, body, headers=headers)


@pytest.mark.parametrize("keyed", [False, True], ids=["stock", "key"])
def test_every_submission_is_made_once(api: ApiCase, keyed: bool) -> None:
    every = submissions(api)
    for kind, what in every.items():
        key = {"Idempotency-Key": kind}
        made = send(api, what, key if keyed else FIRST)
        assert made.status_code in {200, 202}, (kind, made.json)
        repeated = send(api, what, key if keyed else RETRY)
        assert repeated.status_code in {200, 202}, (kind, repeated.json)
        same = "signing_secret" if kind in {"hook", "signing"} else "id"
        assert repeated.json[same] == made.json[same], kind
        other = send(api, what, FIRST)
        assert other.json[same] != made.json[same], kind


def test_a_rotation_that_comes_twice_keeps_the_old_secret(api: ApiCase) -> None:
    made = api.post("/v1/webhook_endpoints", HOOK).json
    path = f"/v1/webhook_endpoints/{made['id']}/rotate_secret"
    body = {"keep_old_secret_active_for_24_hours": True}
    rotated = api.post(path, body, headers=FIRST).json["signing_secret"]
    assert api.post(path, body, headers=RETRY).json["signing_secret"] == rotated
    with api.begin() as connection:
        old = connection.execute(text("SELECT old_secret FROM webhook_endpoints")).scalar()
    assert old == made["signing_secret"] != rotated


def test_a_rollback_that_comes_twice_goes_one_model_back(api: ApiCase) -> None:
    models = ["a", "b", "c"]
    with api.begin() as connection:
        sync_catalog(connection, [ModelEntry(id=name, engine="fake") for name in models])
    path = "/v1/model_aliases"
    made = {"name": "x@live", "model": "a"}
    for headers in (FIRST, RETRY):
        assert api.post(path, made, headers=headers).status_code == 201
    for name in models[1:]:
        assert api.post(f"{path}/x@live", {"model": name}).status_code == 200
    for headers in (FIRST, RETRY):
        rolled = api.post(f"{path}/x@live/rollback", headers=headers)
        assert (rolled.status_code, rolled.json["model"]) == (200, "b"), rolled.json


def test_a_direct_calls_retry_waits_for_the_first_calls_job(api: ApiCase) -> None:
    body = {"model": MODEL, "prompt": "x"}

    def ask(headers: dict[str, str]) -> TestResponse:
        return api.app.test_client().post("/v1/completions", json=body, headers=api.key | headers)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, FIRST)
        api.until_waiting(1)
        while count(api, "jobs") == 0:
            time.sleep(0.005)
        second = threads.submit(ask, RETRY)
        api.until_waiting(2)
        with api.begin() as connection:
            job_id = connection.execute(text("SELECT id FROM jobs")).scalar()
        api.post(f"/v1/jobs/{job_id}/cancel")
        replies = [first.result(), second.result()]
    assert [reply.headers["x-pressrun-job"] for reply in replies] == [job_id, job_id]
    assert count(api, "jobs") == 1


# --- while the first is being worked on ----------------------------------------------------------


class Held:
    """A submission that stands still before its commit, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.go = threading.Event(), threading.Event()

        def held(*args: Any) -> None:
            self.began.set()
            assert self.go.wait(60)
            submit(*args)

        monkeypatch.setattr("api.submitting.submit", held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


@pytest.mark.parametrize(("first", "again"), [(FIRST, RETRY), (KEY, KEY)], ids=["stock", "key"])
def test_one_under_way_is_told_so_and_found_later(
    api: ApiCase, held: Held, first: dict[str, str], again: dict[str, str]
) -> None:
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(
            lambda: api.app.test_client().post("/v1/jobs", json=COMPLETION, headers=api.key | first)
        )
        assert held.began.wait(60)
        refused = api.post("/v1/jobs", COMPLETION, headers=again)
        held.go.set()
        made = slow.result()
    assert refused.status_code == 409
    assert refused.json["error"]["code"] == "request_under_way"
    assert refused.headers["Retry-After"] == "1"
    assert "x-should-retry" not in refused.headers
    assert made.status_code == 202
    assert api.post("/v1/jobs", COMPLETION, headers=again).json["id"] == made.json["id"]
    assert count(api, "jobs") == 1


def test_a_key_is_seen_by_other_processes_before_anything_is_done(api: ApiCase, held: Held) -> None:
    other = create_app(api.settings, bell=api.bell)
    try:
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(
                lambda: api.app.test_client().post(
                    "/v1/jobs", json=COMPLETION, headers=api.key | KEY
                )
            )
            assert held.began.wait(60)
            refused = other.test_client().post("/v1/jobs", json=COMPLETION, headers=api.key | KEY)
            mismatch = other.test_client().post(
                "/v1/jobs", json=COMPLETION | {"priority": 1}, headers=api.key | KEY
            )
            held.go.set()
            slow.result()
    finally:
        other.extensions[EXTENSION].close()
    assert (refused.status_code, mismatch.status_code) == (409, 422)


def test_a_claim_left_behind_is_taken_over_and_its_holder_makes_nothing(
    api: ApiCase, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(
            lambda: api.app.test_client().post("/v1/jobs", json=COMPLETION, headers=api.key | KEY)
        )
        assert held.began.wait(60)
        with api.begin() as connection:
            connection.execute(
                text(
                    "UPDATE idempotency_keys SET claimed_at = clock_timestamp()"
                    " - make_interval(secs => :seconds)"
                ),
                {"seconds": CLAIM_SECONDS + 1},
            )
        monkeypatch.setattr("api.submitting.submit", submit)
        taken = api.post("/v1/jobs", COMPLETION, headers=KEY)
        held.go.set()
        late = slow.result()
    assert taken.status_code == 202
    assert (late.status_code, late.json["error"]["code"]) == (409, "request_under_way")
    assert count(api, "jobs") == 1
    assert api.post("/v1/jobs", COMPLETION, headers=KEY).json["id"] == taken.json["id"]


def test_a_claim_left_behind_is_taken_over_by_one(api: ApiCase) -> None:
    """Two that find it at the same time: the second acts when the first has it already."""
    assert api.post("/v1/jobs", COMPLETION, headers=KEY).status_code == 202
    with api.begin() as connection:
        tenant, key, route, body = connection.execute(
            text(
                "UPDATE idempotency_keys SET job_id = NULL, claim = 'x', claimed_at ="
                " clock_timestamp() - make_interval(secs => :seconds)"
                " RETURNING tenant_id, key, route, fingerprint"
            ),
            {"seconds": CLAIM_SECONDS + 1},
        ).one()

    def take(claim: str) -> Claim:
        with api.begin() as connection:
            return claim_key(
                connection, tenant, route=route, key=key, fingerprint=body, claim=claim
            )

    first: list[Claim] = []

    def overtake(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith("UPDATE idempotency_keys") and not first:
            first.append(Claim(b"", False, None))  # its own statement is let through
            first[0] = take("first")

    event.listen(api.engine, "before_cursor_execute", overtake)
    try:
        second = take("second")
    finally:
        event.remove(api.engine, "before_cursor_execute", overtake)
    assert [found.is_mine for found in (*first, second)] == [True, False]


def test_a_transaction_that_holds_the_key_keeps_nobody_waiting(api: ApiCase) -> None:
    assert api.post("/v1/jobs", COMPLETION, headers=KEY).status_code == 202
    with api.begin() as connection:
        connection.execute(
            text(
                "UPDATE idempotency_keys"
                " SET claim = 'x', claimed_at = clock_timestamp(), job_id = NULL"
            )
        )
    with api.begin() as connection:
        # As its holder does before the commit; answered while that is open, or not at all.
        connection.execute(text("UPDATE idempotency_keys SET claim = NULL, object_id = 'y'"))
        assert api.post("/v1/jobs", COMPLETION, headers=KEY).status_code == 409


def test_a_refused_request_leaves_its_key_free(api: ApiCase) -> None:
    wrong = COMPLETION | {"body": {"model": "nobody", "prompt": "x"}}
    assert api.post("/v1/jobs", wrong, headers=KEY).status_code == 404
    assert count(api, "idempotency_keys") == 0
    assert api.post("/v1/jobs", COMPLETION, headers=KEY).status_code == 202


def test_a_failed_first_leaves_the_way_free_for_its_retry(api: ApiCase) -> None:
    wrong = COMPLETION | {"body": {"model": "late", "prompt": "x"}}
    assert api.post("/v1/jobs", wrong, headers=FIRST).status_code == 404
    with api.begin() as connection:
        entry = ModelEntry(id="late", engine="fake", endpoints=["/v1/completions"])
        sync_catalog(connection, [entry])
    assert api.post("/v1/jobs", wrong, headers=RETRY).status_code == 202


# --- what it costs --------------------------------------------------------------------------------


def test_a_first_request_of_a_stock_client_asks_the_database_no_more_than_any(
    api: ApiCase,
) -> None:
    api.post("/v1/jobs", COMPLETION)
    with api.count_statements() as plain:
        api.post("/v1/jobs", COMPLETION)
    with api.count_statements() as stock:
        api.post("/v1/jobs", COMPLETION, headers=FIRST)
    assert len(stock) == len(plain) == 1


def test_the_lookup_of_a_retry_uses_the_index(api: ApiCase) -> None:
    with api.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(
            text("EXPLAIN SELECT id FROM jobs WHERE request_hash = '\\x00' AND tenant_id = 't'")
        ).scalars()
        assert any("ix_jobs_request_hash" in line for line in plan)
