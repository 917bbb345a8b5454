"""A tenant is told of a limit that is nearly used up, and of one that is: each once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared.db.usage import count_usage
from shared.lifecycle import working
from shared.webhook_events import THRESHOLD_REACHED
from tests.integration.api_case import ADMIN, MODEL, ApiCase, api_fixture
from worker.upkeep.limits_pass import LimitsPass

__all__ = ["api_fixture"]

Told = tuple[str, str, int]
"""Limit, period and percent."""

USE = text("""
INSERT INTO usage (shard_id, endpoint, model, epoch, tenant_id, job_id, rows, input_tokens,
                   output_tokens, compute_seconds, cost, created_at)
SELECT n, '/v1/completions', :model, 1, :tenant, 'job_x', 1, :tokens, 0, :seconds, :cost, :at
  FROM generate_series(CAST(:first AS bigint), :first + :rows - 1) n
""")


class Consumer:
    """The tenant of an API, and what it is told."""

    def __init__(self, api: ApiCase) -> None:
        self.api = api
        self.tenant = str(api.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]["id"])
        self.passes = LimitsPass(api.engine)
        self.rows = 0
        hook = {"name": "n", "url": "https://example.com/", "event_types": [THRESHOLD_REACHED]}
        assert api.post("/v1/webhook_endpoints", hook).status_code == 200

    def limit(self, **limits: Any) -> None:
        path = f"/v1/admin/tenants/{self.tenant}"
        reply = self.api.client.patch(path, json={"limits": limits}, headers=ADMIN)
        assert reply.status_code == 200, reply.json

    def use(
        self, cost: int = 0, *, rows: int = 1, tokens: int = 0, seconds: float = 0.0, at: Any = None
    ) -> None:
        """So much for each of ``rows``; now, unless it is said when."""
        values = {"tenant": self.tenant, "model": MODEL, "first": self.rows, "rows": rows}
        amounts = {"cost": cost, "tokens": tokens, "seconds": seconds}
        with self.api.begin() as connection:
            moment = at or connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            connection.execute(USE, values | amounts | {"at": moment})
        self.rows += rows

    def told(self) -> list[Told]:
        """By the webhooks that were made, oldest first."""
        with self.api.begin() as connection:
            rows = connection.execute(
                text("""
SELECT n.limit_name, CAST(n.period_start AS text), n.percent
  FROM webhook_deliveries d JOIN limit_notices n ON n.id = d.about
 WHERE d.event_type = :type AND d.tenant_id = n.tenant_id ORDER BY d.id
"""),
                {"type": THRESHOLD_REACHED},
            )
            return [(row[0], row[1], row[2]) for row in rows]

    def known(self) -> int:
        with self.api.begin() as connection:
            return int(connection.execute(text("SELECT count(*) FROM limit_notices")).scalar_one())


@pytest.fixture(name="it")
def consumer_fixture(api: ApiCase) -> Consumer:
    return Consumer(api)


def day(moment: datetime) -> str:
    return moment.date().isoformat()


def month(moment: datetime) -> str:
    return moment.date().replace(day=1).isoformat()


NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
"""Days that are over count as any other: what was consumed on them may be added up late."""


def test_each_threshold_of_each_limit_is_told_once_in_its_day_or_month(it: Consumer) -> None:
    it.limit(daily_budget=100, monthly_budget=250)
    it.use(79, at=NOON)
    it.passes.count()
    assert it.told() == []
    it.use(1, at=NOON)
    it.passes.count()
    assert it.told() == [("daily_budget", day(NOON), 80)]
    it.use(300, at=NOON)
    it.passes.count()
    rest = [("daily_budget", day(NOON), 100), ("monthly_budget", month(NOON), 80)]
    assert it.told()[1:] == [*rest, ("monthly_budget", month(NOON), 100)]
    it.use(300, at=NOON + timedelta(hours=1))
    it.passes.count()
    assert len(it.told()) == 4
    later = NOON + timedelta(days=1)
    it.use(85, at=later)
    it.passes.count()
    assert it.told()[4:] == [("daily_budget", day(later), 80)]
    following = NOON + timedelta(days=31)
    it.use(99, at=following)
    it.use(110, at=following + timedelta(days=1))
    it.passes.count()
    assert set(it.told()[5:]) == {
        ("daily_budget", day(following), 80),
        ("daily_budget", day(following + timedelta(days=1)), 80),
        ("daily_budget", day(following + timedelta(days=1)), 100),
        ("monthly_budget", month(following), 80),
    }
    assert len(it.told()) == 9


def test_tokens_and_seconds_are_told_of_too(it: Consumer) -> None:
    it.limit(daily_tokens=10, daily_compute_seconds=2.5)
    it.use(tokens=8, seconds=2.0, at=NOON)
    it.passes.count()
    assert it.told() == [("daily_compute_seconds", day(NOON), 80), ("daily_tokens", day(NOON), 80)]


def test_nobody_is_told_who_has_no_limit_or_one_of_nothing(it: Consumer) -> None:
    it.use(1_000, tokens=1_000, at=NOON)
    it.passes.count()
    it.limit(daily_budget=0, queued_rows=5)
    it.use(1_000, tokens=1_000, at=NOON)
    it.passes.count()
    it.passes.settle()
    assert (it.told(), it.known()) == ([], 0)


def test_many_processes_at_once_tell_once(it: Consumer) -> None:
    it.limit(daily_budget=100, monthly_budget=100)
    it.use(1, rows=200, at=NOON)

    def count(_: int) -> int:
        with it.api.begin() as connection:
            counted = count_usage(connection, limit=7)
            working.tell_of_limits(connection, counted.spent)
        return counted.rows

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(count, range(40))) > 0
    while count(0):
        pass
    assert sorted(it.told()) == [
        ("daily_budget", day(NOON), 80),
        ("daily_budget", day(NOON), 100),
        ("monthly_budget", month(NOON), 80),
        ("monthly_budget", month(NOON), 100),
    ]
    assert it.known() == 4


def test_a_pass_that_is_killed_before_its_commit_has_told_nothing(it: Consumer) -> None:
    it.limit(daily_budget=100)
    it.use(90, at=NOON)

    class Killed(Exception):
        pass

    def killed() -> None:
        with it.api.begin() as connection:
            counted = count_usage(connection)
            assert working.tell_of_limits(connection, counted.spent) == 1
            raise Killed

    with pytest.raises(Killed):
        killed()
    assert (it.told(), it.known()) == ([], 0)
    for _ in range(2):
        it.passes.count()
    assert it.told() == [("daily_budget", day(NOON), 80)]


def test_a_limit_that_is_set_below_what_was_consumed_is_told_of(it: Consumer) -> None:
    with it.api.begin() as connection:
        today = connection.execute(text("SELECT now() AT TIME ZONE 'UTC'")).scalar_one()
    it.use(90)
    it.passes.count()
    it.limit(monthly_budget=100)
    assert it.told() == []
    it.passes.settle()
    assert [(limit, percent) for limit, _, percent in it.told()] == [("monthly_budget", 80)]
    assert date.fromisoformat(it.told()[0][1]) >= today.date().replace(day=1)
    it.limit(monthly_budget=95)
    it.limit(monthly_budget=91)
    it.passes.settle()
    it.passes.settle()
    assert len(it.told()) == 1
    it.limit(monthly_budget=90)
    it.passes.settle()
    assert [percent for _, _, percent in it.told()] == [80, 100]


def test_a_tenant_looks_a_notice_up(it: Consumer) -> None:
    it.limit(daily_compute_seconds=2.0, monthly_budget=100)
    it.use(80, seconds=1.75, at=NOON)
    it.passes.count()
    page = it.api.get("/v1/limit_notices?limit=1").json
    assert (len(page["data"]), page["has_more"]) == (1, True)
    rest = it.api.get(f"/v1/limit_notices?after={page['last_id']}").json
    assert rest["has_more"] is False
    by_limit = {one["limit"]: one for one in (*page["data"], *rest["data"])}
    spent = by_limit["monthly_budget"]
    assert (spent["percent"], spent["allowed"], spent["consumed"]) == (80, 100, 80)
    assert datetime.fromtimestamp(spent["period_start"], UTC).date() == date(2026, 3, 1)
    worked = by_limit["daily_compute_seconds"]
    assert (worked["allowed"], worked["consumed"]) == (2, 1.75)
    assert it.api.get(f"/v1/limit_notices/{spent['id']}").json == spent
    assert it.api.get("/v1/limit_notices/notice_x").status_code == 404
    other = it.api.new_tenant()
    assert it.api.get(f"/v1/limit_notices/{spent['id']}", headers=other).status_code == 404
    assert it.api.get("/v1/limit_notices", headers=other).json["data"] == []


def test_old_notices_are_forgotten_by_new_ones(it: Consumer) -> None:
    it.limit(daily_budget=100)
    for at in (NOON - timedelta(days=401), NOON):
        it.use(80, at=at)
        it.passes.count()
    assert it.known() == 1
