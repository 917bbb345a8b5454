"""A dry run says whether quotas would take the work, and takes nothing itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from api.batch_objects import BatchEstimate
from api.job_objects import JobEstimate
from tests.integration.api_case import ADMIN, COMPLETION
from tests.integration.upkeep_case import Hall, hall_fixture, row

__all__ = ["hall_fixture"]


def limit(hall: Hall, **limits: Any) -> None:
    newest = hall.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]["id"]
    path = f"/v1/admin/tenants/{newest}"
    reply = hall.client.patch(path, json={"limits": limits}, headers=ADMIN)
    assert reply.status_code == 200


def estimate(hall: Hall) -> Any:
    shown = hall.post("/v1/jobs", COMPLETION | {"dry_run": True}).json
    JobEstimate.model_validate(shown)
    return shown["quotas"]


def test_a_job(hall: Hall) -> None:
    assert estimate(hall) == {"is_accepted": True}
    limit(hall, queued_rows=1)
    assert estimate(hall) == {"is_accepted": True}
    assert estimate(hall) == {"is_accepted": True}
    hall.submit()
    told = estimate(hall)
    assert told["is_accepted"] is False
    assert (told["error"]["code"], told["error"]["param"]) == ("quota_exceeded", "queued_rows")
    with hall.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM reservations")).scalar() == 1


def test_a_batch(hall: Hall) -> None:
    limit(hall, queued_rows=3)
    batches = [hall.batch(b"".join(map(row, range(rows))), dry_run=True) for rows in (3, 4)]
    while hall.upkeep():
        pass
    fits, does_not = (hall.look(batch_id)["estimate"] for batch_id in batches)
    for told in (fits, does_not):
        BatchEstimate.model_validate(told)
    assert fits["quotas"] == {"is_accepted": True}
    assert does_not["quotas"]["error"]["param"] == "queued_rows"
