"""Limits and batches: their rows are known once they are validated, and fit as a whole or fail."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from shared.db.models import sync_catalog
from shared.lifecycle.quotas import standing_of
from shared.models_catalog import ModelEntry, Price
from shared.quotas.limits import Standing
from tests.integration.api_case import ADMIN, MODEL
from tests.integration.upkeep_case import ENDPOINT, Hall, hall_fixture, row

__all__ = ["hall_fixture"]

ROWS = b"".join(row(number) for number in range(600))
"""Three slices; each row has a token of prompt and at most seven of text."""


def limit(hall: Hall, **limits: Any) -> str:
    listed = hall.client.get("/v1/admin/tenants", headers=ADMIN).json["data"]
    path = f"/v1/admin/tenants/{listed[0]['id']}"
    reply = hall.client.patch(path, json={"limits": limits}, headers=ADMIN)
    assert reply.status_code == 200, reply.json
    return str(listed[0]["id"])


def standing(hall: Hall, tenant: str) -> Standing:
    with hall.begin() as connection:
        return standing_of(connection, tenant)


def test_a_batch_with_a_row_too_many_fails_whole_and_names_the_quota(hall: Hall) -> None:
    tenant = limit(hall, queued_rows=599)
    batch_id = hall.batch(ROWS)
    assert hall.upkeep()
    failed = hall.look(batch_id)
    assert failed["status"] == "failed"
    (error,) = failed["errors"]["data"]
    assert (error["code"], error["param"], error["line"]) == ("quota_exceeded", "queued_rows", None)
    assert "599" in error["message"]
    with hall.begin() as connection:
        slices = "SELECT count(*) FROM shards WHERE stage = 'generate'"
        assert connection.execute(text(slices)).scalar() == 0
    assert standing(hall, tenant).open_rows == 0


def test_the_slices_of_a_batch_let_go_of_their_rows_one_by_one(hall: Hall) -> None:
    tenant = limit(hall, queued_rows=600, daily_tokens=100_000)
    batch_id = hall.batch(ROWS)
    assert hall.upkeep()
    assert standing(hall, tenant)[:2] == (600, 600 * 8)
    (first, second, third) = hall.claim("text", 10)
    hall.end_slice(first)
    now = standing(hall, tenant)
    assert now.open_rows == 600 - first.row_count
    assert now.open_tokens == 8 * now.open_rows
    assert now.tokens_today == 8 * first.row_count
    hall.end_slice(second)
    hall.end_slice(third)
    assert hall.upkeep()
    assert hall.look(batch_id)["status"] == "completed"
    assert standing(hall, tenant)[:2] == (0, 0)
    totals = hall.get("/v1/usage").json["totals"]
    assert (totals["rows"], totals["input_tokens"], totals["output_tokens"]) == (600, 1800, 3000)


def test_a_budget_that_the_whole_batch_does_not_fit_is_not_begun(hall: Hall) -> None:
    price = Price(input_per_million=10.0, output_per_million=100.0)
    with hall.begin() as connection:
        entry = ModelEntry(id=MODEL, engine="fake", endpoints=[ENDPOINT], price=price)
        sync_catalog(connection, [entry])
    tenant = limit(hall, monthly_budget=600 * 710 - 1)
    refused = hall.batch(ROWS)
    assert hall.upkeep()
    assert hall.look(refused)["errors"]["data"][0]["code"] == "budget_exceeded"
    limit(hall, monthly_budget=600 * 710)
    accepted = hall.batch(ROWS)
    assert hall.upkeep()
    assert hall.look(accepted)["status"] == "in_progress"
    assert standing(hall, tenant).open_cost == 600 * 710
    for claim in hall.claim("text", 10):
        hall.end_slice(claim)
    assert standing(hall, tenant).cost_this_month == 600 * (3 * 10 + 5 * 100)


def test_a_batch_is_refused_at_once_when_there_is_room_for_nothing(hall: Hall) -> None:
    limit(hall, queued_rows=0)
    body = {
        "input_file_id": hall.upload(ROWS).json["id"],
        "endpoint": ENDPOINT,
        "completion_window": "24h",
    }
    refused = hall.post("/v1/batches", body)
    assert (refused.status_code, refused.json["error"]["param"]) == (429, "queued_rows")


def test_cancelling_a_batch_lets_go_of_all_its_rows(hall: Hall) -> None:
    tenant = limit(hall, queued_rows=600)
    batch_id = hall.batch(ROWS)
    assert hall.upkeep()
    assert standing(hall, tenant).open_rows == 600
    assert hall.post(f"/v1/batches/{batch_id}/cancel").status_code == 200
    assert standing(hall, tenant).open_rows == 0
