"""What somebody holds this instant is passed over: neither workers nor upkeep wait for each other.

In each test a transaction holds a row, and another one that looks for work gets the next. It would
have to wait for the first if it did not skip what is locked, and fails then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from shared.db.usage import count_usage
from shared.lifecycle import quotas, webhooks, working
from shared.lifecycle.webhook_attempts import claim_deliveries
from tests.integration.protocol import OTHER, TENANT, Plant
from tests.integration.webhook_case import announce, ended, endpoint

MOST_WAITING = "SET LOCAL lock_timeout = '5s'"
"""Whoever waits for a lock fails; whoever waits for none has all the time in the world."""


@pytest.fixture(name="plant")
def plant_fixture(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


@contextmanager
def holding(plant: Plant, table: str, where: str = "true") -> Iterator[object]:
    """Somebody has the first row of a table; yields its id."""
    with plant.engine.begin() as connection:
        row = f"SELECT id FROM {table} WHERE {where} ORDER BY id LIMIT 1 FOR UPDATE"
        yield connection.execute(text(row)).scalar_one()


@contextmanager
def impatient(plant: Plant) -> Iterator[Connection]:
    with plant.engine.begin() as connection:
        connection.execute(text(MOST_WAITING))
        yield connection


def claim(plant: Plant, most: int) -> set[int]:
    with impatient(plant) as connection:
        claims = working.claim(
            connection, session_id="w1", pools=["text"], max_shards=most, max_rows=99
        )
        return {claim.shard_id for claim in claims}


@pytest.mark.parametrize(
    ("ready", "tenants", "most"),
    [(3, 1, 9), (5, 1, 2), (3, 2, 2)],
    ids=["all_that_waits", "one_tenants_next", "of_tenants_in_turn"],
)
def test_a_claim_takes_what_nobody_else_is_taking(
    plant: Plant, ready: int, tenants: int, most: int
) -> None:
    """Each of the three statements that claim."""
    plant.session()
    for _ in range(ready):
        for tenant in (TENANT, OTHER)[:tenants]:
            plant.generation(tenant)
    with holding(plant, "shards") as held:
        taken = claim(plant, most)
    assert len(taken) == min(most, ready * tenants - 1)
    assert held not in taken


def test_dispatch_moves_what_nobody_else_is_moving(plant: Plant) -> None:
    plant.generating(slices=3)
    plant.sql("UPDATE shards SET state = 'queued', ready_seq = NULL WHERE state = 'ready'")
    with holding(plant, "shards", "state = 'queued'"), impatient(plant) as connection:
        assert working.dispatch(connection, pool="text", window=9) == 2


def test_a_stop_leaves_what_is_being_claimed_to_the_sweep(plant: Plant) -> None:
    job_id = plant.generating(slices=3)
    with holding(plant, "shards", "state = 'ready'"), impatient(plant) as connection:
        assert working.sweep_stopped(connection) == 0
        connection.execute(
            text("UPDATE jobs SET stop_reason = 'cancelled' WHERE id = :id"), {"id": job_id}
        )
        assert working.sweep_stopped(connection) == 2
    assert plant.sweep() == 1


def test_shards_of_the_dead_are_taken_back_around_a_late_commit(plant: Plant) -> None:
    plant.session()
    for _ in range(3):
        plant.generation()
    assert len(plant.claim()) == 3
    plant.expire_session("w1")
    assert plant.declare_dead("w1") == 1
    with holding(plant, "shards"), impatient(plant) as connection:
        assert working.recover_lost(connection) == ["text"]
    assert plant.scalar("SELECT count(*) FROM shards WHERE state = 'running'") == 1
    assert plant.recover() == ["text"]


def test_jobs_whose_time_is_up_end_around_one_that_is_ending(plant: Plant) -> None:
    for _ in range(3):
        plant.generation(expires_in=-1)
    with holding(plant, "jobs"), impatient(plant) as connection:
        assert working.expire_overdue(connection) == 2
    assert plant.expire_overdue() == 1


def test_ends_are_announced_and_deliveries_leased_around_those_of_others(plant: Plant) -> None:
    endpoint(plant)
    ended(plant, 3)
    with holding(plant, "events", "NOT announced"), impatient(plant) as connection:
        assert webhooks.announce_ends(connection) == (2, 2)
    assert announce(plant) == (1, 1)
    with holding(plant, "webhook_deliveries") as held, impatient(plant) as connection:
        leased = claim_deliveries(connection, lease="s1", lease_seconds=60, limit=9, each=9)
        assert len(leased) == 2
        assert held not in {delivery.id for delivery in leased}


def test_usage_is_added_up_and_reservations_go_around_those_of_others(plant: Plant) -> None:
    plant.session()
    for _ in range(3):
        plant.generation()
    for taken in plant.claim():
        assert plant.finish("w1", taken.held)
    plant.sql(
        "INSERT INTO reservations (shard_id, tenant_id, rows, tokens, cost)"
        " SELECT id, tenant_id, 1, 0, 0 FROM shards"
    )
    with plant.engine.begin() as holder, impatient(plant) as connection:
        for table in ("reservations", "usage"):
            holder.execute(text(f"SELECT 1 FROM {table} ORDER BY shard_id LIMIT 1 FOR UPDATE"))
        assert quotas.let_go(connection) == 2
        assert count_usage(connection).rows == 2
