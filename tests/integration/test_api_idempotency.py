"""A repeated submit with an Idempotency-Key is the first one, also when both come at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from tests.integration.api_case import COMPLETION, ApiCase, api_fixture

__all__ = ["api_fixture"]


def test_the_same_key_and_body_are_the_same_job(api: ApiCase) -> None:
    once = {"Idempotency-Key": "k1"}
    first = api.post("/v1/jobs", COMPLETION, headers=once)
    again = api.post("/v1/jobs", dict(reversed(COMPLETION.items())), headers=once)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json["id"] == first.json["id"]
    assert again.headers["Location"] == first.headers["Location"]
    other = api.post("/v1/jobs", COMPLETION | {"priority": 1}, headers=once)
    assert other.status_code == 422
    assert other.json["error"]["code"] == "idempotency_mismatch"
    assert api.post("/v1/jobs", COMPLETION).json["id"] != first.json["id"]


def test_a_key_is_one_tenants_own(api: ApiCase) -> None:
    once = {"Idempotency-Key": "k1"}
    mine = api.post("/v1/jobs", COMPLETION, headers=once).json["id"]
    other = api.new_tenant()
    theirs = api.post("/v1/jobs", COMPLETION, headers=once | other)
    assert theirs.status_code == 202
    assert theirs.json["id"] != mine


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tbed", "ü"])
def test_a_key_out_of_reason_is_refused(api: ApiCase, key: str) -> None:
    reply = api.post("/v1/jobs", COMPLETION, headers={"Idempotency-Key": key})
    assert reply.status_code == 400
    assert reply.json["error"]["param"] == "Idempotency-Key"


def test_ten_at_once_make_one_job(api: ApiCase) -> None:
    start = threading.Barrier(10)

    def submit(_: int) -> tuple[int, str]:
        client = api.app.test_client()
        start.wait()
        reply = client.post(
            "/v1/jobs", json=COMPLETION, headers=api.key | {"Idempotency-Key": "race"}
        )
        return reply.status_code, reply.json.get("id", "")

    for _ in range(3):
        with ThreadPoolExecutor(10) as threads:
            replies = list(threads.map(submit, range(10)))
        # On a busy machine some may be told that the first is still under way.
        assert {status for status, _ in replies} <= {200, 202, 409}
        assert len({job_id for status, job_id in replies if status != 409}) == 1
    with api.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 1
        assert connection.execute(text("SELECT count(*) FROM shards")).scalar() == 1
