"""How often a tenant may call, over all processes; and tenants that are switched off."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from api.app import EXTENSION, create_app
from api.rate_limiting import TERMS_CACHE_SECONDS, spelled
from shared.db.rate_buckets import take_request
from shared.lifecycle import working
from tests.integration.api_case import ADMIN, COMPLETION, ApiCase, api_fixture

__all__ = ["api_fixture"]

HOURLY = 1 / 3_600
"""So slow that no bucket gains anything while a test runs."""


def change(api: ApiCase, **changes: Any) -> dict[str, Any]:
    newest = api.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]
    path = f"/v1/admin/tenants/{newest['id']}"
    reply = api.client.patch(path, json=changes, headers=ADMIN)
    assert reply.status_code == 200, reply.json
    return dict(reply.json)


@pytest.fixture
def others(api: ApiCase) -> Iterator[list[Any]]:
    """More API processes' worth of pools and caches."""
    apps = [create_app(api.settings, bell=api.bell) for _ in range(3)]
    yield apps
    for app in apps:
        app.extensions[EXTENSION]().close()


def test_one_bucket_for_all_processes(api: ApiCase, others: list[Any]) -> None:
    change(api, limits={"requests_per_second": HOURLY, "request_burst": 7})
    apps = [api.app, *others]

    def call(number: int) -> Any:
        client = apps[number % len(apps)].test_client()
        return client.get("/v1/models", headers=api.key)

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(call, range(40)))
    codes = [reply.status_code for reply in replies]
    assert (codes.count(200), codes.count(429)) == (7, 33)
    left = sorted(
        int(reply.headers["x-ratelimit-remaining-requests"])
        for reply in replies
        if reply.status_code == 200
    )
    assert left == list(range(7))
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-ratelimit-limit-requests"] == "7"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 3_000 < int(refused.headers["Retry-After"]) <= 3_600
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")


def test_every_request_counts_once_polls_and_errors_too(api: ApiCase) -> None:
    job_id = api.submit()
    etag = api.get(f"/v1/jobs/{job_id}").headers["ETag"]
    change(api, limits={"requests_per_second": HOURLY, "request_burst": 9})
    calls = [
        api.get(f"/v1/jobs/{job_id}"),
        api.get(f"/v1/jobs/{job_id}", {"If-None-Match": etag}),
        api.get("/v1/jobs/job_00000000000000000000000000"),
        api.post("/v1/jobs", {"endpoint": "nothing"}),
        api.post("/v1/jobs", COMPLETION),
    ]
    assert [reply.status_code for reply in calls] == [200, 304, 404, 400, 202]
    left = [int(reply.headers["x-ratelimit-remaining-requests"]) for reply in calls]
    assert left == [8, 7, 6, 5, 4]


def test_a_tenant_without_a_rate_is_told_of_none_and_leaves_no_trace(api: ApiCase) -> None:
    reply = api.get("/v1/models")
    assert not [name for name, _ in reply.headers if "ratelimit" in name]
    with api.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM rate_buckets")).scalar() == 0


def test_a_bucket_gains_what_the_rate_says(api: ApiCase) -> None:
    def take() -> Any:
        with api.begin() as connection:
            return take_request(connection, "ten_x", seconds_each=100.0, burst=3)

    def pass_time(seconds: float) -> None:
        with api.begin() as connection:
            connection.execute(
                text("UPDATE rate_buckets SET full_at = full_at - make_interval(secs => :s)"),
                {"s": seconds},
            )

    assert [take().is_granted for _ in range(4)] == [True, True, True, False]
    pass_time(100.0)
    assert [take().is_granted for _ in range(2)] == [True, False]
    pass_time(10_000.0)  # no more than a full bucket is saved up
    assert [take().is_granted for _ in range(4)] == [True, True, True, False]


def test_a_bucket_that_was_emptied_at_another_rate_does_not_stay_so(api: ApiCase) -> None:
    def take(seconds_each: float, burst: int) -> bool:
        with api.begin() as connection:
            taken = take_request(connection, "ten_x", seconds_each=seconds_each, burst=burst)
        return taken.is_granted

    assert [take(1e6, 3) for _ in range(4)] == [True, True, True, False]
    assert [take(1e5, 3) for _ in range(2)] == [True, False]
    assert [take(1e5, 5) for _ in range(3)] == [True, True, False]
    assert [take(1e5, 1) for _ in range(2)] == [True, False]


def test_rates_and_weights_that_nothing_can_be_counted_by_are_refused(api: ApiCase) -> None:
    newest = api.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]
    path = f"/v1/admin/tenants/{newest['id']}"
    for changes, param in (
        ({"weight": 5e-324}, "weight"),
        ({"weight": 0.000_9}, "weight"),
        ({"limits": {"requests_per_second": 5e-324}}, "limits.requests_per_second"),
    ):
        reply = api.client.patch(path, json=changes, headers=ADMIN)
        assert (reply.status_code, reply.json["error"]["param"]) == (400, param)
    change(api, weight=0.001, limits={"requests_per_second": 1e-6, "request_burst": 1_000_000})
    assert api.get("/v1/limits").status_code == 200


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0ms"),
        (0.017, "17ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (360.0, "6m0s"),
        (61.25, "1m1.25s"),
    ],
)
def test_times_are_spelled_as_openai_does(seconds: float, said: str) -> None:
    assert spelled(seconds) == said


def test_a_disabled_tenants_keys_are_refused_and_its_work_waits(
    api: ApiCase, others: list[Any]
) -> None:
    job_id = api.submit()
    elsewhere = others[0].test_client()
    assert elsewhere.get("/v1/models", headers=api.key).status_code == 200
    assert change(api, disabled=True)["disabled"] is True
    refused = api.get(f"/v1/jobs/{job_id}", {"If-None-Match": '"x"'})
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "tenant_disabled")
    assert TERMS_CACHE_SECONDS <= 2.0
    gate = others[0].extensions[EXTENSION]().gate
    gate.forget()  # as it does by itself within that time
    assert elsewhere.get("/v1/models", headers=api.key).status_code == 403
    assert claimed(api) == []
    change(api, disabled=False)
    assert api.get(f"/v1/jobs/{job_id}").json["state"] == "queued"
    assert [claim.job_id for claim in claimed(api)] == [job_id]


def claimed(api: ApiCase) -> list[working.Claim]:
    with api.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return working.claim(
            connection,
            session_id=api.open_session(connection),
            pools=["text"],
            max_shards=8,
            max_rows=8,
        )
