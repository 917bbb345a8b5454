"""Schedules and monitors that are deleted while upkeep takes rows of their sources."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection

from shared import lifecycle
from shared.ids import new_monitor_id, new_schedule_id
from shared.lifecycle import RowsRead
from shared.lifecycle.monitor_work import claim_monitor, hold_monitor, take_rows
from shared.lifecycle.monitors import NewMonitor, create_monitor, delete_monitor
from shared.lifecycle.schedules import NewSchedule, create_schedule, delete_schedule
from shared.specs.schedules import FeedSource, ScheduleSpec
from tests.integration.protocol import TENANT, Plant
from tests.plant import wait_until

PATIENCE_SECONDS = 120.0
HASHES = [b"1" * 32, b"2" * 32]


@pytest.fixture(name="plant")
def plant_fixture(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


def make_schedule(plant: Plant) -> str:
    schedule_id = new_schedule_id()
    spec = ScheduleSpec(
        template="{{ title }}", source=FeedSource(format="rss", url="https://example.com/feed"),
        every="day", at="07:00", timezone="UTC", max_rows=10, remember_days=30, n=1,
    )  # fmt: skip
    new = NewSchedule(
        schedule_id=schedule_id, tenant_id=TENANT, name="news", spec=spec, starts_now=True
    )
    with plant.engine.begin() as connection:
        create_schedule(connection, new)
    return schedule_id


def make_monitor(plant: Plant) -> str:
    monitor_id = new_monitor_id()
    new = NewMonitor(
        monitor_id=monitor_id, tenant_id=TENANT, name="tone", model="m", label="bad", limit=0.5,
        minimum=1, window_seconds=60, source={"type": "rss", "url": "https://example.com/feed"},
    )  # fmt: skip
    with plant.engine.begin() as connection:
        create_monitor(connection, new)
    return monitor_id


def accept(connection: Connection) -> None:
    claim = lifecycle.begin_run(connection, lease_seconds=60)
    assert claim is not None
    rows = RowsRead(
        found=2, new=HASHES, again=(), left=0, bad=(), bad_n=0, etag=None, last_modified=None
    )
    assert lifecycle.accept_run(connection, claim, rows, None)


def take(connection: Connection) -> None:
    claim = claim_monitor(connection, lease_seconds=60)
    assert claim is not None
    assert hold_monitor(connection, claim)
    new = dict.fromkeys(HASHES, "words")
    take_rows(connection, claim, new=new, again=(), marks=(None, None))


def is_waiting(plant: Plant) -> bool:
    """Whether somebody waits for a lock."""
    return bool(
        plant.scalar(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


@pytest.mark.parametrize("kind", ["schedule", "monitor"])
def test_nothing_is_remembered_for_a_source_that_nobody_has(plant: Plant, kind: str) -> None:
    """Its rows are taken at the very moment at which it is deleted."""
    owner_id = make_schedule(plant) if kind == "schedule" else make_monitor(plant)

    def delete() -> bool:
        with plant.engine.begin() as connection:
            if kind == "schedule":
                return delete_schedule(connection, tenant_id=TENANT, schedule_id=owner_id)
            return delete_monitor(connection, tenant_id=TENANT, monitor_id=owner_id)

    with ThreadPoolExecutor(1) as threads, plant.engine.begin() as connection:
        (accept if kind == "schedule" else take)(connection)
        deleted = threads.submit(delete)
        wait_until(lambda: is_waiting(plant), PATIENCE_SECONDS)
        connection.commit()
        assert deleted.result(PATIENCE_SECONDS)
    assert plant.scalar("SELECT count(*) FROM feed_rows") == 0
