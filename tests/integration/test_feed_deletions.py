"""Schedules and monitors that are deleted while upkeep takes rows of their sources."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from shared.lifecycle.monitors import delete_monitor
from shared.lifecycle.schedules import delete_schedule
from shared.lifecycle.schedules_seen import see_rows
from tests.integration.protocol import TENANT, Plant
from tests.plant import wait_until

PATIENCE_SECONDS = 120.0
OWNER = "owner"
MAKE = {
    "schedules": "INSERT INTO schedules (id, tenant_id, name, spec, anchor_at, next_run_at)"
    " VALUES (:id, :tenant, 'news', '{}', clock_timestamp(), clock_timestamp())",
    "monitors": "INSERT INTO monitors (id, tenant_id, name, model, label, share_limit, minimum,"
    " window_seconds, next_look_at)"
    " VALUES (:id, :tenant, 'tone', 'm', 'bad', 0.5, 1, 60, clock_timestamp())",
}


@pytest.fixture(name="plant")
def plant_fixture(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


def delete(plant: Plant, table: str) -> bool:
    with plant.engine.begin() as connection:
        if table == "schedules":
            return delete_schedule(connection, tenant_id=TENANT, schedule_id=OWNER)
        return delete_monitor(connection, tenant_id=TENANT, monitor_id=OWNER)


def is_waiting(plant: Plant) -> bool:
    """Whether somebody waits for a lock."""
    found = plant.scalar(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(found)


@pytest.mark.parametrize("table", ["schedules", "monitors"])
def test_nothing_is_remembered_for_a_source_that_nobody_has(plant: Plant, table: str) -> None:
    """Rows of it are taken, by whoever holds it, at the moment at which it is deleted."""
    plant.sql(MAKE[table], id=OWNER, tenant=TENANT)
    with ThreadPoolExecutor(1) as threads, plant.engine.begin() as connection:
        connection.execute(text(f"SELECT 1 FROM {table} FOR NO KEY UPDATE"))
        deleted = threads.submit(delete, plant, table)
        wait_until(lambda: is_waiting(plant), PATIENCE_SECONDS)
        see_rows(
            connection, owner_id=OWNER, tenant_id=TENANT, run_id=None, new=[b"1", b"2"], again=(),
            days=30,
        )  # fmt: skip
        connection.commit()
        assert deleted.result(PATIENCE_SECONDS)
    assert plant.scalar("SELECT count(*) FROM feed_rows") == 0
