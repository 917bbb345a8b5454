"""Usage over HTTP: days, groups, pages, totals, whose it is; and the tenants' administration."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import text

from api import admin_objects, usage_objects
from api.usage_requests import seconds_of
from shared.db.usage import count_usage
from tests.integration.api_case import ADMIN, MODEL, ApiCase, api_fixture

__all__ = ["api_fixture"]

DAYS = [date(2026, 2, 27), date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 3)]
CHAT, WORDS = "/v1/chat/completions", "/v1/completions"


def newest(api: ApiCase) -> str:
    return str(api.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]["id"])


def consume(api: ApiCase, tenant: str, day: date, shard: int, **changed: Any) -> None:
    values = {
        "endpoint": CHAT, "model": MODEL, "rows": 1, "input": 10, "output": 5, "images": 0,
        "media": 0.0, "compute": 0.5, "cost": 7,
    } | changed  # fmt: skip
    at = datetime(day.year, day.month, day.day, 23, 59, 59, 999_999, UTC)
    with api.begin() as connection:
        connection.execute(
            text("""
INSERT INTO usage (shard_id, endpoint, model, epoch, tenant_id, job_id, rows, input_tokens,
                   output_tokens, images, media_seconds, compute_seconds, cost, created_at)
VALUES (:shard, :endpoint, :model, 1, :tenant, 'job_x', :rows, :input, :output, :images, :media,
        :compute, :cost, :at)
"""),
            values | {"tenant": tenant, "shard": shard, "at": at},
        )


@pytest.fixture
def used(api: ApiCase) -> str:
    """The tenant, which has used two models on four days; what is counted is half of it."""
    tenant = newest(api)
    for number, day in enumerate(DAYS):
        consume(api, tenant, day, number)
        consume(api, tenant, day, 100 + number, endpoint=WORDS, model="m2", images=3, media=1.5)
        if number == 1:
            with api.begin() as connection:
                count_usage(connection)
    return tenant


def asked(api: ApiCase, query: str = "", path: str = "/v1/usage") -> dict[str, Any]:
    span = f"start_time={seconds_of(DAYS[0])}&end_time={seconds_of(date(2026, 3, 4))}"
    headers = ADMIN if "admin" in path else api.key
    reply = api.client.get(f"{path}?{span}{query}", headers=headers)
    assert reply.status_code == 200, reply.json
    usage_objects.UsagePage.model_validate(reply.json)
    return dict(reply.json)


def rows(page: dict[str, Any]) -> list[list[int]]:
    return [[result["rows"] for result in bucket["results"]] for bucket in page["data"]]


def test_days_and_their_sums(api: ApiCase, used: str) -> None:
    page = asked(api)
    assert rows(page) == [[2], [2], [2], [], [2]]
    assert page["data"][0]["start_time"] == seconds_of(DAYS[0])
    assert page["totals"] == {
        "rows": 8,
        "input_tokens": 80,
        "output_tokens": 40,
        "images": 12,
        "media_seconds": 6.0,
        "compute_seconds": 4.0,
        "cost": 56,
    }
    assert (page["has_more"], page["next_page"]) == (False, None)


def test_groups_are_told_apart(api: ApiCase, used: str) -> None:
    both = asked(api, "&group_by=model&group_by=endpoint")["data"][0]["results"]
    told = [(one["endpoint"], one["model"], one["images"]) for one in both]
    assert told == [(CHAT, MODEL, 0), (WORDS, "m2", 3)]
    models = asked(api, "&group_by=model")["data"][0]["results"]
    assert [(one["endpoint"], one["model"]) for one in models] == [(None, "m2"), (None, MODEL)]


def test_pages_have_all_days_once(api: ApiCase, used: str) -> None:
    pages = [asked(api, "&limit=2")]
    while pages[-1]["has_more"]:
        pages.append(asked(api, f"&limit=2&page={pages[-1]['next_page']}"))
    whole = asked(api)
    assert [bucket for page in pages for bucket in page["data"]] == whole["data"]
    assert len(pages) == 3
    assert {str(page["totals"]) for page in pages} == {str(whole["totals"])}


def test_usage_is_the_callers_own_and_the_administrator_sees_all(api: ApiCase, used: str) -> None:
    first = dict(api.key)
    api.key = api.new_tenant()
    other = newest(api)
    consume(api, other, DAYS[0], 1_000, rows=50)
    assert asked(api)["totals"]["rows"] == 50
    api.key = first
    assert asked(api)["totals"]["rows"] == 8
    every = asked(api, "&group_by=tenant_id", "/v1/admin/usage")
    assert every["totals"]["rows"] == 58
    told = {one["tenant_id"]: one["rows"] for one in every["data"][0]["results"]}
    assert told == {used: 2, other: 50}
    one = asked(api, f"&tenant_id={other}", "/v1/admin/usage")
    assert one["totals"]["rows"] == 50
    assert api.client.get("/v1/admin/usage", headers=api.key).status_code == 403


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("start_time=x", "start_time"),
        ("start_time=5&end_time=5", "end_time"),
        ("start_time=0&end_time=999999999999999999", "end_time"),
        ("start_time=0&end_time=253402300799", "start_time"),
        ("group_by=tenant_id", "group_by"),
        ("group_by=day", "group_by"),
        ("limit=0", "limit"),
        ("limit=367", "limit"),
        ("page=1", "page"),
        ("page=never", "page"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(api: ApiCase, query: str, param: str) -> None:
    reply = api.get(f"/v1/usage?{query}")
    assert (reply.status_code, reply.json["error"]["param"]) == (400, param)


def test_nothing_consumed_is_nothing(api: ApiCase) -> None:
    page = api.get("/v1/usage").json
    usage_objects.UsagePage.model_validate(page)
    assert page["totals"]["rows"] == page["totals"]["cost"] == 0
    assert len(page["data"]) == 31


def test_limits_are_shown_beside_what_counts_for_them(api: ApiCase) -> None:
    path = f"/v1/admin/tenants/{newest(api)}"
    limits = {"queued_rows": 5, "stored_bytes": 10**6, "daily_tokens": 10**5}
    api.client.patch(path, json={"limits": limits}, headers=ADMIN)
    api.submit()
    api.upload(b"12345")
    shown = api.get("/v1/limits").json
    usage_objects.LimitsInUse.model_validate(shown)
    assert shown["limits"]["queued_rows"] == 5
    assert shown["limits"]["monthly_budget"] is None
    assert shown["held"]["queued_rows"] == 1
    assert shown["held"]["stored_bytes"] == 5
    assert shown["held"]["reserved_tokens"] == 16


# --- tenants ------------------------------------------------------------------------------------


def test_a_tenant_is_made_shown_and_changed(api: ApiCase) -> None:
    body = {"name": "a", "weight": 2.5, "limits": {"queued_rows": 7, "running_shards": 3}}
    made = api.client.post("/v1/admin/tenants", json=body, headers=ADMIN).json
    admin_objects.Tenant.model_validate(made)
    path = f"/v1/admin/tenants/{made['id']}"
    assert api.client.get(path, headers=ADMIN).json == made
    assert (made["weight"], made["limits"]["queued_rows"], made["disabled"]) == (2.5, 7, False)
    change = {"limits": {"queued_rows": None, "daily_budget": 0}, "name": "b"}
    changed = api.client.patch(path, json=change, headers=ADMIN).json
    kept = {"queued_rows": None, "daily_budget": 0, "running_shards": 3}
    assert changed == made | {"name": "b", "limits": made["limits"] | kept}
    assert changed in api.client.get("/v1/admin/tenants", headers=ADMIN).json["data"]
    assert running_shards(api, made["id"]) == 3
    api.client.patch(path, json={"disabled": True}, headers=ADMIN)
    assert running_shards(api, made["id"]) == 0
    back = {"disabled": False, "limits": {"running_shards": 4}}
    api.client.patch(path, json=back, headers=ADMIN)
    assert running_shards(api, made["id"]) == 4


def running_shards(api: ApiCase, tenant: str) -> Any:
    query = text("SELECT max_running_shards FROM tenants WHERE id = :id")
    with api.begin() as connection:
        return connection.execute(query, {"id": tenant}).scalar()


def test_limits_that_are_all_taken_away_are_none(api: ApiCase) -> None:
    path = f"/v1/admin/tenants/{newest(api)}"
    api.client.patch(path, json={"limits": {"queued_rows": 1}}, headers=ADMIN)
    api.client.patch(path, json={"limits": {"queued_rows": None}}, headers=ADMIN)
    with api.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM tenant_limits")).scalar() == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"weight": 0}, "weight"),
        ({"weight": 1001}, "weight"),
        ({"limits": {"queued_rows": -1}}, "limits.queued_rows"),
        ({"limits": {"queued_rows": 2**63}}, "limits.queued_rows"),
        ({"limits": {"requests_per_second": 0}}, "limits.requests_per_second"),
        ({"limits": {"running_shards": 2**31}}, "limits.running_shards"),
        ({"limits": {"rows": 1}}, "limits.rows"),
        ({"disabled": "yes"}, "disabled"),
        ({"name": "\x00"}, "name"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    api: ApiCase, body: dict[str, Any], param: str
) -> None:
    path = f"/v1/admin/tenants/{newest(api)}"
    before = api.client.get(path, headers=ADMIN).json
    reply = api.client.patch(path, json=body, headers=ADMIN)
    assert (reply.status_code, reply.json["error"]["param"]) == (400, param)
    assert api.client.get(path, headers=ADMIN).json == before


def test_only_the_administrator_sees_and_changes_tenants(api: ApiCase) -> None:
    path = f"/v1/admin/tenants/{newest(api)}"
    assert api.client.get(path, headers=api.key).status_code == 403
    assert api.client.patch(path, json={"name": "x"}, headers=api.key).status_code == 403
    assert api.client.get("/v1/admin/tenants/ten_x", headers=ADMIN).status_code == 404
    unknown = "/v1/admin/tenants/ten_00000000000000000000000000"
    assert api.client.patch(unknown, json={"name": "x"}, headers=ADMIN).status_code == 404
