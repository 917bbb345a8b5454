"""The first limits of a tenant count what was being accepted at the moment they were set."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from shared import lifecycle
from shared.db.session import autocommit
from shared.ids import new_job_id
from shared.lifecycle.limits import wait_for_writers, writers
from shared.lifecycle.quotas import standing_of
from tests.integration.api_case import ADMIN, MODEL, ApiCase, api_fixture
from tests.plant import wait_until
from worker.upkeep.limits_pass import LimitsPass

__all__ = ["api_fixture"]


@pytest.fixture(name="tenant")
def tenant_fixture(api: ApiCase) -> str:
    return str(api.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]["id"])


@contextmanager
def submitting(api: ApiCase, tenant: str, *, how: str = "generation") -> Iterator[Connection]:
    """A submission that has looked at the tenant's limits, and is yet to commit."""
    with api.engine.connect() as connection:
        submit(connection, tenant, how)
        yield connection


def submit(connection: Connection, tenant: str, how: str) -> None:
    common: dict[str, Any] = {"job_id": new_job_id(), "tenant_id": tenant, "window": 8}
    if how == "generation":
        body = {"model": MODEL, "prompt": "x"}
        lifecycle.submit_generation(
            connection, **common, pool="text", endpoint="/v1/completions", model=MODEL, body=body
        )
        return
    connection.execute(
        text("INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
             " VALUES ('file-x', :tenant, 'f', 'batch', 0, '', '')"),
        {"tenant": tenant},
    )  # fmt: skip
    lifecycle.submit_batch(
        connection, **common, endpoint="/v1/completions", input_file_id="file-x", spec={},
        expires_in_seconds=60.0,
    )  # fmt: skip


def limit(api: ApiCase, tenant: str, **limits: Any) -> Any:
    path = f"/v1/admin/tenants/{tenant}"
    client = api.app.test_client()
    return client.patch(path, json={"limits": limits}, headers=ADMIN)


def scalar(api: ApiCase, statement: str) -> Any:
    with api.begin() as connection:
        return connection.execute(text(statement)).scalar()


def reserved(api: ApiCase, tenant: str) -> int:
    with api.begin() as connection:
        return standing_of(connection, tenant).open_rows


@pytest.mark.parametrize("how", ["generation", "batch"])
def test_who_has_looked_at_limits_is_seen_before_and_not_after_its_commit(
    api: ApiCase, tenant: str, how: str
) -> None:
    with submitting(api, tenant, how=how) as submission, autocommit(api.engine) as watcher:
        own = submission.execute(
            text("SELECT virtualtransaction FROM pg_locks WHERE pid = pg_backend_pid() LIMIT 1")
        ).scalar_one()
        assert own in writers(watcher)
        assert wait_for_writers(watcher, seconds=0.0) is False
        submission.commit()
        assert own not in writers(watcher)
        assert wait_for_writers(watcher, seconds=60.0) is True


def test_limits_that_are_set_during_a_submission_count_it(
    api: ApiCase, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two connections: the first one looks, the second one sets, the first one commits."""
    monkeypatch.setattr("api.routes.admin.MOST_WAIT_SECONDS", 120.0)
    with ThreadPoolExecutor(1) as pool, submitting(api, tenant) as submission:
        answer = pool.submit(limit, api, tenant, queued_rows=1)
        wait_until(lambda: scalar(api, "SELECT count(*) FROM tenant_limits") == 1, 60)
        submission.commit()
        assert answer.result(120).status_code == 200
    assert reserved(api, tenant) == 1
    refused = api.post("/v1/jobs", {"endpoint": "/v1/completions", "body": {"model": MODEL,
                                    "prompt": "x"}})  # fmt: skip
    assert refused.status_code == 429


def test_upkeep_counts_what_the_api_did_not_wait_for(
    api: ApiCase, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.admin.MOST_WAIT_SECONDS", 0.0)
    passes = LimitsPass(api.engine)
    with submitting(api, tenant) as submission:
        assert limit(api, tenant, queued_rows=1).status_code == 200
        passes.settle()
        passes.settle()
        assert scalar(api, "SELECT settled FROM tenant_limits") is False
        submission.commit()
    assert reserved(api, tenant) == 0
    passes.settle()
    assert scalar(api, "SELECT settled FROM tenant_limits") is True
    assert reserved(api, tenant) == 1


def test_limits_are_settled_though_the_api_was_killed_after_they_were_set(
    api: ApiCase, tenant: str
) -> None:
    api.submit()
    with api.begin() as connection:  # all that it came to do
        connection.execute(
            text("INSERT INTO tenant_limits (tenant_id, queued_rows) VALUES (:tenant, 5)"),
            {"tenant": tenant},
        )
    LimitsPass(api.engine).settle()
    assert reserved(api, tenant) == 1


def test_who_comes_after_the_limits_is_not_waited_for(api: ApiCase, tenant: str) -> None:
    """Else a busy plant's limits would never be settled."""
    passes = LimitsPass(api.engine)
    with submitting(api, tenant) as first:
        with api.begin() as connection:
            connection.execute(
                text("INSERT INTO tenant_limits (tenant_id, queued_rows) VALUES (:tenant, 5)"),
                {"tenant": tenant},
            )
        passes.settle()
        with submitting(api, tenant):  # a second one, which does see the limits
            first.commit()
            with autocommit(api.engine) as watcher:
                assert len(writers(watcher)) == 1
                new = passes._writers
                assert len(new) == 1
                [left] = new.values()
                assert not left & writers(watcher)


def test_other_databases_writers_are_not_waited_for(
    api: ApiCase, tenant: str, empty_database_url: str
) -> None:
    other = create_engine(empty_database_url)
    with other.connect() as elsewhere, autocommit(api.engine) as watcher:
        elsewhere.execute(text("CREATE TABLE shards (id int)"))
        elsewhere.execute(text("INSERT INTO shards VALUES (1)"))
        assert writers(watcher) == frozenset()
    other.dispose()
