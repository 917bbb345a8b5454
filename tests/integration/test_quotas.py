"""Limits of work: not one row over, whoever submits at the same time, whatever happens to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection, text

from api.app import EXTENSION, create_app
from api.rate_limiting import Gate
from shared import lifecycle
from shared.db.models import sync_catalog
from shared.db.tenants import TenantTerms
from shared.db.usage import count_usage
from shared.errors import BudgetExceeded, QuotaExceeded
from shared.ids import new_job_id
from shared.lifecycle import working
from shared.lifecycle.quotas import standing_of
from shared.lifecycle.working import GenerationEnd, ReleaseReason
from shared.models_catalog import ModelEntry, Price
from shared.quotas.limits import Limits
from shared.states import ShardState
from tests.integration.api_case import ADMIN, COMPLETION, MODEL, ApiCase, api_fixture
from tests.plant import wait_until

__all__ = ["api_fixture"]

SUBMITTERS = 20
TOKENS = 100
"""That each call may generate; its prompt is estimated as one token."""
CALL: dict[str, Any] = COMPLETION | {
    "body": {"model": MODEL, "prompt": "word", "seed": 1, "max_tokens": TOKENS}
}
PRICE = Price(input_per_million=1.0, output_per_million=2.0)


@pytest.fixture
def priced(api: ApiCase) -> ApiCase:
    with api.begin() as connection:
        entry = ModelEntry(id=MODEL, engine="fake", endpoints=["/v1/completions"], price=PRICE)
        sync_catalog(connection, [entry])
    return api


@pytest.fixture
def clients(api: ApiCase) -> Iterator[list[Any]]:
    """Of four API processes' worth of pools and caches."""
    apps = [create_app(api.settings, bell=api.bell) for _ in range(4)]
    yield [app.test_client for app in apps]
    for app in apps:
        app.extensions[EXTENSION]().close()


def tenant_id(api: ApiCase) -> str:
    return str(api.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]["id"])


def limit(api: ApiCase, **limits: Any) -> str:
    name = tenant_id(api)
    reply = api.client.patch(f"/v1/admin/tenants/{name}", json={"limits": limits}, headers=ADMIN)
    assert reply.status_code == 200, reply.json
    return name


def submit_at_once(api: ApiCase, clients: list[Any], each: int) -> list[Any]:
    """``SUBMITTERS`` threads, that begin together; how each of their calls was answered."""
    together = Barrier(SUBMITTERS)

    def submit(number: int) -> list[Any]:
        client = clients[number % len(clients)]()
        together.wait(60)
        return [client.post("/v1/jobs", json=CALL, headers=api.key) for _ in range(each)]

    with ThreadPoolExecutor(SUBMITTERS) as pool:
        return [reply for replies in pool.map(submit, range(SUBMITTERS)) for reply in replies]


def claimed(api: ApiCase, session_id: str, most: int = 64) -> list[working.Claim]:
    with api.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return working.claim(
            connection, session_id=session_id, pools=["text"], max_shards=most, max_rows=1000
        )


def end(
    claim: working.Claim, state: ShardState = ShardState.SUCCEEDED, *, tokens: int = 7
) -> GenerationEnd:
    good = state == ShardState.SUCCEEDED
    return GenerationEnd(
        claim.held,
        state,
        "0" * 64,
        result="{}" if good else None,
        error_code=None if good else "engine_error",
        error_message=None if good else "no",
        input_tokens=1 if good else 0,
        output_tokens=tokens if good else 0,
        compute_seconds=0.25,
    )


def scalar(api: ApiCase, statement: str, **values: Any) -> Any:
    with api.begin() as connection:
        return connection.execute(text(statement), values).scalar()


def standing(api: ApiCase, tenant: str) -> Any:
    with api.begin() as connection:
        return standing_of(connection, tenant)


def test_twenty_submitters_get_not_one_row_more(api: ApiCase, clients: list[Any]) -> None:
    limit(api, queued_rows=33)
    replies = submit_at_once(api, clients, each=3)
    codes = [reply.status_code for reply in replies]
    assert codes.count(202) == 33
    assert codes.count(429) == SUBMITTERS * 3 - 33
    assert scalar(api, "SELECT count(*) FROM jobs") == 33
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.json["error"]["code"] == "quota_exceeded"
    assert refused.json["error"]["type"] == "rate_limit_error"
    assert refused.json["error"]["param"] == "queued_rows"
    assert int(refused.headers["Retry-After"]) > 0


def test_tokens_that_accepted_work_may_take_are_set_aside(api: ApiCase, clients: list[Any]) -> None:
    tenant = limit(api, daily_tokens=10 * (TOKENS + 1) + TOKENS)
    codes = [reply.status_code for reply in submit_at_once(api, clients, each=2)]
    assert codes.count(202) == 10
    with api.begin() as connection:
        session_id = api.open_session(connection)
    claims = claimed(api, session_id)
    with api.begin() as connection:
        working.finish_generations(connection, session_id, [end(claim) for claim in claims])
    assert len(claims) == 10
    now = standing(api, tenant)
    assert (now.open_rows, now.open_tokens, now.tokens_today) == (0, 0, 10 * 8)
    again = [reply.status_code for reply in submit_at_once(api, clients, each=1)]
    left = 10 * (TOKENS + 1) + TOKENS - 80
    assert again.count(202) == left // (TOKENS + 1)


def test_a_budget_is_not_overspent(priced: ApiCase, clients: list[Any]) -> None:
    most = 1 + 2 * TOKENS
    tenant = limit(priced, monthly_budget=5 * most)
    replies = submit_at_once(priced, clients, each=1)
    codes = [reply.status_code for reply in replies]
    assert codes.count(202) == 5
    assert codes.count(402) == SUBMITTERS - 5
    refused = next(reply for reply in replies if reply.status_code == 402)
    assert refused.json["error"]["code"] == "budget_exceeded"
    assert refused.json["error"]["param"] == "monthly_budget"
    assert standing(priced, tenant).open_cost == 5 * most


@pytest.mark.parametrize("finished", ["succeeded", "failed", "cancelled", "crashed"])
def test_whatever_ends_work_lets_go_of_what_was_set_aside(api: ApiCase, finished: str) -> None:
    tenant = limit(api, queued_rows=1)
    job_id = api.submit()
    assert api.post("/v1/jobs", COMPLETION).status_code == 429
    with api.begin() as connection:
        session_id = api.open_session(connection)
    if finished == "cancelled":
        assert api.post(f"/v1/jobs/{job_id}/cancel").status_code in {200, 202}
    elif finished == "crashed":
        for _ in range(2):
            (claim,) = claimed(api, session_id)
            assert standing(api, tenant).open_rows == 1
            with api.begin() as connection:
                working.release(connection, session_id, claim.held, ReleaseReason.CRASHED)
    else:
        (claim,) = claimed(api, session_id)
        with api.begin() as connection:
            ended = end(claim, ShardState(finished))
            working.finish_generations(connection, session_id, [ended])
    assert standing(api, tenant).open_rows == 0
    api.submit()
    assert api.post("/v1/jobs", COMPLETION).status_code == 429


def test_usage_adds_up_with_retries_losses_and_repeated_commits(priced: ApiCase) -> None:
    api = priced
    for _ in range(6):
        api.submit()
    with api.begin() as connection:
        first, second = api.open_session(connection), api.open_session(connection)
    lost = claimed(api, first)
    with api.begin() as connection:
        connection.execute(
            text("UPDATE sessions SET expires_at = NULL WHERE id = :id"), {"id": first}
        )
        working.recover_lost(connection)
        connection.execute(text("UPDATE shards SET not_before = clock_timestamp()"))
    claims = claimed(api, second)
    assert len(claims) == 6
    with api.begin() as connection:
        assert not working.finish_generations(connection, first, [end(c) for c in lost])
    ends = [end(claim, tokens=10 + at) for at, claim in enumerate(claims)]
    for _ in range(2):  # the answer to the first was lost
        with api.begin() as connection:
            assert len(working.finish_generations(connection, second, ends)) == 6
        with api.begin() as connection:
            count_usage(connection, limit=4)
    totals = api.get("/v1/usage").json["totals"]
    outputs = sum(10 + at for at in range(6))
    assert totals == {
        "rows": 6,
        "input_tokens": 6,
        "output_tokens": outputs,
        "images": 0,
        "media_seconds": 0.0,
        "compute_seconds": 1.5,
        "cost": 6 + 2 * outputs,
    }
    assert totals["output_tokens"] == scalar(api, "SELECT sum(output_tokens) FROM jobs")


def test_counting_at_once_counts_each_row_once(api: ApiCase) -> None:
    jobs = [api.submit() for _ in range(12)]
    with api.begin() as connection:
        session_id = api.open_session(connection)
    claims = claimed(api, session_id)
    with api.begin() as connection:
        working.finish_generations(connection, session_id, [end(claim) for claim in claims])

    def count(_: int) -> int:
        with api.engine.begin() as connection:
            return count_usage(connection, limit=3).rows

    with ThreadPoolExecutor(4) as pool:
        found = sum(pool.map(count, range(8)))
    while found < len(jobs):  # rows that another held at that instant were passed over
        found += count(0)
    assert found == len(jobs)
    assert scalar(api, "SELECT sum(rows) FROM usage_days") == len(jobs)
    assert scalar(api, "SELECT count(*) FROM usage WHERE NOT counted") == 0
    assert api.get("/v1/usage").json["totals"]["rows"] == len(jobs)


def test_limits_hold_though_a_process_does_not_know_of_them_yet(
    api: ApiCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(api, queued_rows=2)
    stale = TenantTerms(disabled=False, limits=Limits())
    monkeypatch.setattr(Gate, "terms", lambda *_: stale)
    api.submit()
    api.submit()
    refused = api.post("/v1/jobs", COMPLETION)
    assert (refused.status_code, refused.json["error"]["param"]) == (429, "queued_rows")


def test_rows_accepted_before_there_was_a_limit_count(api: ApiCase) -> None:
    api.submit()
    limit(api, queued_rows=2)
    api.submit()
    assert api.post("/v1/jobs", COMPLETION).status_code == 429


def test_one_tenants_refusal_is_not_anothers(api: ApiCase) -> None:
    other = {"key": api.new_tenant()}
    limits = {"queued_rows": 0}
    name = tenant_id(api)  # the newest: the other one
    api.client.patch(f"/v1/admin/tenants/{name}", json={"limits": limits}, headers=ADMIN)
    with ThreadPoolExecutor(8) as pool:
        mine = [pool.submit(api.app.test_client().post, "/v1/jobs", json=CALL, headers=api.key)
                for _ in range(8)]  # fmt: skip
        theirs = [
            pool.submit(api.app.test_client().post, "/v1/jobs", json=CALL, headers=other["key"])
            for _ in range(8)
        ]
    assert {reply.result().status_code for reply in mine} == {202}
    assert {reply.result().status_code for reply in theirs} == {429}


def test_used_up_compute_seconds_stop_what_comes_after(api: ApiCase) -> None:
    limit(api, daily_compute_seconds=0.2)
    api.submit()
    api.submit()
    with api.begin() as connection:
        session_id = api.open_session(connection)
    (claim, _) = claimed(api, session_id)
    with api.begin() as connection:
        working.finish_generations(connection, session_id, [end(claim)])
    refused = api.post("/v1/jobs", COMPLETION)
    assert refused.status_code == 429
    assert refused.json["error"]["param"] == "daily_compute_seconds"
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400


def test_work_is_refused_by_lifecycle_whoever_submits_it(api: ApiCase) -> None:
    tenant = limit(api, daily_budget=0, queued_rows=5)
    arguments: dict[str, Any] = {
        "tenant_id": tenant,
        "endpoint": "/v1/completions",
        "window": 32,
    }
    api.submit()  # free: the model has no price
    file_id = api.upload().json["id"]
    with pytest.raises(BudgetExceeded), api.begin() as connection:
        lifecycle.submit_batch(
            connection,
            job_id="batch_x",
            input_file_id=file_id,
            spec={},
            expires_in_seconds=60,
            **arguments,
        )
    limit(api, daily_budget=None, queued_rows=1)
    body = json.dumps(CALL["body"])
    with pytest.raises(QuotaExceeded), api.begin() as connection:
        lifecycle.submit_generation(
            connection, job_id="job_x", pool="text", model=MODEL, body=body, **arguments
        )
    assert scalar(api, "SELECT count(*) FROM jobs") == 1


def test_the_second_of_two_transactions_sees_all_of_the_first(api: ApiCase) -> None:
    """Whatever their timing: the first is held open until the second waits for it, or is done."""
    tenant = limit(api, queued_rows=1)

    def accept(connection: Connection) -> None:
        lifecycle.submit_generation(
            connection,
            job_id=new_job_id(),
            tenant_id=tenant,
            pool="text",
            endpoint="/v1/completions",
            model=MODEL,
            body=CALL["body"],
            window=32,
        )

    def accept_alone() -> None:
        with api.engine.begin() as connection:
            accept(connection)

    with ThreadPoolExecutor(1) as pool:
        with api.engine.begin() as first:
            accept(first)
            second = pool.submit(accept_alone)
            wait_until(lambda: second.done() or is_somebody_waiting(api), 60)
        with pytest.raises(QuotaExceeded):
            second.result(60)
    assert scalar(api, "SELECT count(*) FROM jobs") == 1


def is_somebody_waiting(api: ApiCase) -> bool:
    return bool(
        scalar(
            api,
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
    )
