"""Webhook endpoints over HTTP: the shape that OpenAI's client knows, and what is ours beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from openai.types.webhooks import (
    DeletedWebhookEndpoint,
    WebhookEndpoint,
    WebhookEndpointWithSecret,
    WebhookEventTypeList,
)
from openai.types.webhooks.webhook_create_params import WebhookCreateParams
from sqlalchemy import text

from api import webhook_objects, webhook_testing
from shared import lifecycle
from shared.db.webhooks import MAX_ENDPOINTS
from shared.lifecycle.webhook_attempts import Attempt, claim_deliveries, record_attempts
from shared.lifecycle.webhooks import announce_ends
from shared.states import StopReason
from tests.integration.api_case import COMPLETION, ApiCase, make_settings
from tests.integration.webhook_case import emptied_database_fixture, module_database_fixture
from tests.unit.shared.egress_urls import PUBLIC_URLS, REFUSED_URLS

__all__ = ["emptied_database_fixture", "module_database_fixture"]

ENDPOINTS = "/v1/webhook_endpoints"
SECRET = "/v1/webhook_signing_secret"
NEW = {
    "name": "mine",
    "url": "https://hooks.example.com/pressrun",
    "event_types": ["batch.completed", "job.cancelled"],
}


@pytest.fixture
def api(emptied_database_url: str, tmp_path: Path) -> Iterator[ApiCase]:
    case = ApiCase(make_settings(emptied_database_url, tmp_path, key_cache_seconds=60))
    yield case
    case.close()


def create(api: ApiCase, **changed: Any) -> dict[str, Any]:
    answer = api.post(ENDPOINTS, NEW | changed)
    assert answer.status_code == 200, answer.json
    return dict(answer.json)


def refused(answer: Any, code: str, param: str | None, status: int = 400) -> None:
    assert answer.status_code == status, answer.json
    assert (answer.json["error"]["code"], answer.json["error"]["param"]) == (code, param)


def end_a_job(api: ApiCase, **changed: Any) -> str:
    """A job that was cancelled, and whose deliveries were made."""
    job_id = api.submit(**changed)
    assert api.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    with api.begin() as connection:
        announce_ends(connection)
    return job_id


def send_all(api: ApiCase, **outcome: Any) -> int:
    """Plays the sender: every due delivery has the same outcome."""
    with api.begin() as connection:
        due = claim_deliveries(connection, lease="test", lease_seconds=30, limit=99, each=99)
        attempts = [Attempt(delivery=item, at=1e9, milliseconds=5, **outcome) for item in due]
        return record_attempts(connection, "test", attempts)


# --- endpoints --------------------------------------------------------------------------------


def test_an_endpoint_from_creation_to_deletion(api: ApiCase) -> None:
    made = create(api)
    WebhookEndpointWithSecret.model_validate(made, strict=True)
    webhook_objects.WebhookEndpointWithSecret.model_validate(made)
    assert made["signing_secret"].startswith("whsec_")
    assert made["signing_secret_hint"].endswith(made["signing_secret"].rstrip("=")[-4:])
    path = f"{ENDPOINTS}/{made['id']}"
    seen = api.get(path).json
    webhook_objects.WebhookEndpoint.model_validate(seen)
    WebhookEndpoint.model_validate(seen, strict=True)
    assert seen == {name: value for name, value in made.items() if name != "signing_secret"}
    assert seen["circuit"] == {"state": "closed", "failures": 0, "open_until": None}

    changed = api.post(path, {"name": "ours", "event_types": ["video.failed", "video.failed"]}).json
    assert (changed["name"], changed["event_types"]) == ("ours", ["video.failed"])
    assert changed["url"] == NEW["url"]

    gone = api.delete(path)
    DeletedWebhookEndpoint.model_validate(gone.json, strict=True)
    webhook_objects.DeletedWebhookEndpoint.model_validate(gone.json)
    for answer in (
        api.get(path),
        api.delete(path),
        api.post(path, {}),
        api.get(f"{path}/deliveries"),
    ):
        assert answer.status_code == 404


def test_updated_at_moves_with_changes_alone(api: ApiCase) -> None:
    made = create(api)
    path = f"{ENDPOINTS}/{made['id']}"
    stamp = "SELECT updated_at FROM webhook_endpoints"

    def updated_at() -> Any:
        with api.begin() as connection:
            return connection.execute(text(stamp)).scalar_one()

    first = updated_at()
    for same in ({}, {"name": NEW["name"]}, {"url": NEW["url"]}, {"enabled": True}):
        assert api.post(path, same).status_code == 200
        assert updated_at() == first
    moments = [first]
    for other in (
        {"name": "b"},
        {"enabled": False},
        {"enabled": True},
        {"event_types": ["job.failed"]},
    ):
        assert api.post(path, other).status_code == 200
        moments.append(updated_at())
    assert moments == sorted(set(moments))


def test_endpoints_are_listed_newest_first_in_pages(api: ApiCase) -> None:
    ids = [create(api, name=f"n{number}")["id"] for number in range(3)][::-1]
    page = api.get(f"{ENDPOINTS}?limit=2").json
    webhook_objects.WebhookEndpointList.model_validate(page)
    assert [item["id"] for item in page["data"]] == ids[:2]
    assert page["has_more"] is True
    rest = api.get(f"{ENDPOINTS}?after={page['last_id']}").json
    assert [item["id"] for item in rest["data"]] == ids[2:]
    assert rest["has_more"] is False
    assert "signing_secret" not in page["data"][0]


def test_a_tenant_has_so_many_endpoints_and_no_more(api: ApiCase) -> None:
    for _ in range(MAX_ENDPOINTS):
        create(api)
    refused(api.post(ENDPOINTS, NEW), "conflict", None, 409)
    first = api.get(ENDPOINTS).json["data"][0]["id"]
    assert api.delete(f"{ENDPOINTS}/{first}").status_code == 200
    create(api)


def test_urls_that_are_never_asked_are_refused_at_once(api: ApiCase) -> None:
    for url in REFUSED_URLS:
        code = "url_not_allowed" if 0 < len(url) <= 2_048 else "invalid_request"
        refused(api.post(ENDPOINTS, NEW | {"url": url}), code, "url")


def test_public_urls_are_taken(api: ApiCase) -> None:
    for url in PUBLIC_URLS:
        assert create(api, url=url)["url"] == url


BAD_FIELDS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": ""}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "x" * 257}, "name"),
    ({"event_types": []}, "event_types"),
    ({"event_types": ["realtime.call.incoming"]}, "event_types"),
    ({"event_types": ["nothing"]}, "event_types"),
    ({"event_types": "batch.completed"}, "event_types"),
    ({"event_types": [1]}, "event_types.0"),
    ({"url": 7}, "url"),
    ({"secret": "whsec_mine"}, "secret"),
)


def test_bad_fields_are_named(api: ApiCase) -> None:
    path = f"{ENDPOINTS}/{create(api)['id']}"
    for changed, param in BAD_FIELDS:
        refused(api.post(ENDPOINTS, NEW | changed), "invalid_request", param)
        refused(api.post(path, changed), "invalid_request", param)


def test_the_types_are_those_that_happen_here(api: ApiCase) -> None:
    listed = api.get("/v1/webhook_event_types").json
    WebhookEventTypeList.model_validate(listed, strict=True)
    webhook_objects.WebhookEventTypes.model_validate(listed)
    hints = get_type_hints(WebhookCreateParams)
    openai = get_args(get_args(hints["event_types"])[0])
    ours = set(listed["data"])
    assert {
        name for name in openai if name.startswith(("batch.", "fine_tuning.", "video."))
    } <= ours
    assert {"job.succeeded", "job.failed", "campaign.completed"} <= ours


# --- secrets ----------------------------------------------------------------------------------


def test_secrets_are_rotated_and_shown_once(api: ApiCase) -> None:
    made = create(api)
    path = f"{ENDPOINTS}/{made['id']}/rotate_secret"
    answer = api.post(path, {"keep_old_secret_active_for_24_hours": True})
    assert answer.headers["Cache-Control"] == "no-store"
    WebhookEndpointWithSecret.model_validate(answer.json, strict=True)
    assert answer.json["signing_secret"] != made["signing_secret"]

    def kept() -> Any:
        sql = """SELECT old_secret, old_secret_until - clock_timestamp() BETWEEN
                 interval '23 hours' AND interval '24 hours' FROM webhook_endpoints"""
        with api.begin() as connection:
            return tuple(connection.execute(text(sql)).one())

    assert kept() == (made["signing_secret"], True)
    for body in (None, {}, {"keep_old_secret_active_for_24_hours": False}):
        assert api.post(path, body).status_code == 200
        assert kept() == (None, None)
    refused(
        api.post(path, {"keep_old_secret_active_for_24_hours": "yes"}),
        "invalid_request",
        "keep_old_secret_active_for_24_hours",
    )


def test_the_tenants_own_secret(api: ApiCase) -> None:
    assert api.get(SECRET).status_code == 404
    made = api.post(f"{SECRET}/rotate").json
    webhook_objects.SigningSecretShown.model_validate(made)
    seen = api.get(SECRET).json
    webhook_objects.SigningSecret.model_validate(seen)
    assert "signing_secret" not in seen
    again = api.post(f"{SECRET}/rotate", {"keep_old_secret_active_for_24_hours": True}).json
    assert again["signing_secret"] != made["signing_secret"]
    with api.begin() as connection:
        row = connection.execute(text("SELECT secret, old_secret FROM webhook_secrets")).one()
    assert tuple(row) == (again["signing_secret"], made["signing_secret"])
    stranger = api.new_tenant()
    assert api.client.get(SECRET, headers=stranger).status_code == 404


# --- the webhook of a job ---------------------------------------------------------------------


def test_a_job_brings_a_webhook_of_its_own(api: ApiCase) -> None:
    hook = "https://one.example.com/job?x=1"
    body = COMPLETION | {"webhook": hook}
    refused(api.post("/v1/jobs", body), "signing_secret_missing", "webhook")
    api.post(f"{SECRET}/rotate")
    job_id = end_a_job(api, webhook=hook)
    silent = end_a_job(api, webhook={"url": hook, "events": ["job.failed"]})
    batch_id = api.submit_batch(webhook={"url": hook, "events": ["batch.cancelled"]})
    assert api.post(f"/v1/batches/{batch_id}/cancel").status_code == 200
    with api.begin() as connection:
        announce_ends(connection)
    listed = api.get("/v1/webhook_deliveries").json
    webhook_objects.WebhookDeliveryList.model_validate(listed)
    told = {item["data_id"]: item["event_type"] for item in listed["data"]}
    assert told == {job_id: "job.cancelled", batch_id: "batch.cancelled"}
    assert silent not in told
    assert {item["url"] for item in listed["data"]} == {hook}
    assert api.get(f"/v1/webhook_deliveries?job_id={job_id}").json["data"][0]["data_id"] == job_id


def test_a_webhook_of_a_key_that_is_used_twice_is_one(api: ApiCase) -> None:
    api.post(f"{SECRET}/rotate")
    body = COMPLETION | {"webhook": "https://one.example.com/"}
    headers = {"Idempotency-Key": "k"}
    first = api.post("/v1/jobs", body, headers)
    again = api.post("/v1/jobs", body, headers)
    assert (first.status_code, again.status_code) == (202, 200)
    with api.begin() as connection:
        assert connection.execute(text("SELECT job_id FROM job_webhooks")).scalars().all() == [
            first.json["id"]
        ]


BAD_HOOKS: tuple[tuple[Any, str, str], ...] = (
    ("http://one.example.com/", "url_not_allowed", "webhook.url"),
    ("https://127.0.0.1/", "url_not_allowed", "webhook.url"),
    ({"url": "https://169.254.169.254/"}, "url_not_allowed", "webhook.url"),
    ({"url": "https://one.example.com/", "events": ["x"]}, "invalid_request", "webhook.events"),
    ({"url": "https://one.example.com/", "events": []}, "invalid_request", "webhook.events"),
    ({"url": "https://one.example.com/", "secret": "x"}, "invalid_request", "webhook.secret"),
    ({}, "invalid_request", "webhook.url"),
    (7, "invalid_request", "webhook"),
)


def test_bad_webhooks_of_jobs_are_named_wherever_they_are(api: ApiCase) -> None:
    batch = {"input_file_id": "file-x", "endpoint": "/v1/completions", "completion_window": "24h"}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/jobs": COMPLETION,
        "/v1/batches": batch,
        "/v1/fine_tuning/jobs": {"model": "m", "training_file": "file-x"},
        "/v1/campaigns": {"model": "m", "product": "p"},
    }
    for hook, code, param in BAD_HOOKS:
        for path, body in bodies.items():
            refused(api.post(path, body | {"webhook": hook}), code, param)


# --- deliveries -------------------------------------------------------------------------------


def test_deliveries_are_listed_with_their_attempts(api: ApiCase) -> None:
    path = f"{ENDPOINTS}/{create(api)['id']}/deliveries"
    assert api.get(path).json["data"] == []
    jobs = [end_a_job(api) for _ in range(3)]
    page = api.get(f"{path}?limit=2").json
    assert [item["data_id"] for item in page["data"]] == jobs[:0:-1]
    assert page["has_more"] is True
    [last] = api.get(f"{path}?after={page['last_id']}").json["data"]
    assert last["status"] == "pending"
    assert last["attempts"] == []
    assert send_all(api, status_code=500, error_code="http_500") == 3
    assert api.get(f"{path}?status=delivered").json["data"] == []
    seen = api.get(f"{path}?status=pending&job_id={jobs[0]}").json["data"][0]
    assert seen["attempts"] == [
        {"at": 10**9, "milliseconds": 5, "status_code": 500, "error_code": "http_500"}
    ]
    assert (seen["status_code"], seen["error_code"], seen["sending"]) == (500, "http_500", False)
    assert seen["next_attempt_at"] > seen["created_at"]
    refused(api.get(f"{path}?status=lost"), "invalid_request", "status")
    refused(api.get(f"{path}?job_id=a%00b"), "invalid_request", "job_id")
    refused(api.get(f"{path}?after=x"), "invalid_request", "after")


def test_one_delivery_is_replayed_once_it_has_ended(api: ApiCase) -> None:
    made = create(api)
    end_a_job(api)
    path = f"{ENDPOINTS}/{made['id']}/deliveries"
    [seen] = api.get(path).json["data"]
    replay = f"{path}/{seen['id']}/replay"
    refused(api.post(replay), "conflict", None, 409)
    send_all(api, status_code=204)
    assert api.get(path).json["data"][0]["status"] == "delivered"
    again = api.post(replay)
    assert again.status_code == 202
    webhook_objects.WebhookDelivery.model_validate(again.json)
    assert (again.json["status"], again.json["event_id"]) == ("pending", seen["event_id"])
    send_all(api, status_code=200)
    [seen] = api.get(path).json["data"]
    assert [attempt["status_code"] for attempt in seen["attempts"]] == [204, 200]
    other = create(api)["id"]
    wrong = f"{ENDPOINTS}/{other}/deliveries/{seen['id']}/replay"
    assert api.post(wrong).status_code == 404
    assert api.post(f"{path}/whd_nothing/replay").status_code == 404
    assert api.post(f"/v1/webhook_deliveries/{seen['id']}/replay").status_code == 202


def test_all_since_a_time_are_replayed(api: ApiCase) -> None:
    made = create(api)
    for _ in range(2):
        end_a_job(api)
    send_all(api, status_code=410 - 10, error_code="http_400", final=True)
    end_a_job(api)
    send_all(api, status_code=200)
    path = f"{ENDPOINTS}/{made['id']}/replay"
    failed = api.post(path, {"since": made["created_at"], "status": "failed"})
    assert failed.status_code == 202
    webhook_objects.Replayed.model_validate(failed.json)
    assert (failed.json["replayed"], failed.json["has_more"]) == (2, False)
    assert api.post(path, {"since": made["created_at"]}).json["replayed"] == 1
    assert api.post(path, {"since": made["created_at"]}).json["replayed"] == 0
    assert api.post(path, {"since": made["created_at"] + 3_600}).json["replayed"] == 0
    refused(api.post(path, {}), "invalid_request", "since")
    refused(api.post(path, {"since": "now"}), "invalid_request", "since")
    refused(api.post(path, {"since": 0, "status": "pending"}), "invalid_request", "status")


def test_while_it_is_disabled_deliveries_are_kept_and_not_sent(api: ApiCase) -> None:
    made = create(api)
    path = f"{ENDPOINTS}/{made['id']}"
    end_a_job(api)
    off = api.post(path, {"enabled": False}).json
    assert (off["enabled"], off["disabled_reason"]) == (False, "by_tenant")
    end_a_job(api)
    assert send_all(api, status_code=200) == 0
    listed = api.get(f"{path}/deliveries").json["data"]
    assert [item["status"] for item in listed] == ["cancelled"] * 2
    assert {item["error_code"] for item in listed} == {"endpoint_disabled"}
    refused(api.post(f"{path}/replay", {"since": 0}), "conflict", None, 409)
    one = f"{path}/deliveries/{listed[0]['id']}/replay"
    refused(api.post(one), "conflict", None, 409)
    assert api.post(path, {"enabled": True}).json["enabled"] is True
    assert api.post(f"{path}/replay", {"since": 0}).json["replayed"] == 2
    assert send_all(api, status_code=200) == 2


def test_410_disables_the_endpoint_and_ends_what_waits(api: ApiCase) -> None:
    made = create(api)
    end_a_job(api)
    send_all(api, status_code=410, error_code="http_410", final=True)
    seen = api.get(f"{ENDPOINTS}/{made['id']}").json
    assert (seen["enabled"], seen["disabled_reason"]) == (False, "gone")


def test_what_waited_for_a_deleted_endpoint_is_not_sent(api: ApiCase) -> None:
    made = create(api)
    end_a_job(api)
    assert api.delete(f"{ENDPOINTS}/{made['id']}").status_code == 200
    assert send_all(api, status_code=200) == 0
    with api.begin() as connection:
        row = connection.execute(text("SELECT secret, old_secret FROM webhook_endpoints")).one()
    assert tuple(row) == ("", None)
    assert api.get("/v1/webhook_deliveries").json["data"] == []


def test_strangers_see_and_touch_nothing(api: ApiCase) -> None:
    made = create(api)
    end_a_job(api)
    [seen] = api.get(f"{ENDPOINTS}/{made['id']}/deliveries").json["data"]
    stranger = api.new_tenant()
    path = f"{ENDPOINTS}/{made['id']}"
    calls: list[tuple[str, str, Any]] = [
        ("GET", path, None),
        ("POST", path, {"name": "x"}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate_secret", {}),
        ("POST", f"{path}/test", {"event_type": "batch.completed"}),
        ("GET", f"{path}/deliveries", None),
        ("POST", f"{path}/replay", {"since": 0}),
        ("POST", f"{path}/deliveries/{seen['id']}/replay", None),
        ("POST", f"/v1/webhook_deliveries/{seen['id']}/replay", None),
    ]
    for method, url, body in calls:
        answer = api.client.open(url, method=method, json=body, headers=stranger)
        assert answer.status_code == 404, (method, url)
    for url in (ENDPOINTS, "/v1/webhook_deliveries"):
        assert api.client.get(url, headers=stranger).json["data"] == []
    assert api.get(path).json["name"] == NEW["name"]


# --- tests ------------------------------------------------------------------------------------


def test_a_sample_without_a_sender_says_so(
    emptied_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_testing, "PATIENCE_SECONDS", 0.2)
    api = ApiCase(make_settings(emptied_database_url, tmp_path, webhook_timeout_seconds=0.1))
    try:
        path = f"{ENDPOINTS}/{create(api)['id']}/test"
        refused(api.post(path, {"event_type": "x"}), "invalid_request", "event_type")
        refused(
            api.post(path, {"event_type": "batch.failed"}), "sender_unavailable", None, status=503
        )
    finally:
        api.close()


def test_expired_jobs_are_told_as_such(api: ApiCase) -> None:
    create(api, event_types=["job.expired"])
    job_id = api.submit()
    with api.begin() as connection:
        tenant = connection.execute(text("SELECT tenant_id FROM jobs")).scalar_one()
        lifecycle.request_stop(
            connection, tenant_id=tenant, job_id=job_id, reason=StopReason.EXPIRED
        )
        announce_ends(connection)
    [seen] = api.get("/v1/webhook_deliveries").json["data"]
    assert (seen["event_type"], seen["data_id"]) == ("job.expired", job_id)
