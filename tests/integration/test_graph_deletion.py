"""Deleting a job whose outcome is known while a step of its graph still runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from shared.db.briefs import delete_job
from shared.lifecycle.graphs import close_steps
from tests.integration.graphs import FORK, POOLS, artifact, fail, finish, submit, take
from tests.integration.protocol import OTHER, TENANT, Plant

PATIENCE_SECONDS = 30.0


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    plant.session("w1", pools=POOLS)
    yield plant
    plant.close()


def delete(plant: Plant, job_id: str, tenant: str = TENANT) -> bool:
    with plant.engine.begin() as connection:
        deleted = delete_job(connection, tenant, job_id)
        if deleted:
            # As the steps of the deletion do later.
            connection.execute(text("DELETE FROM artifacts WHERE job_id = :job"), {"job": job_id})
    return deleted


def somebody_waits_for_a_lock(plant: Plant) -> bool:
    return bool(
        plant.sql(
            "SELECT 1 FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


def test_a_step_that_ends_after_its_job_was_deleted_brings_nothing_back(plant: Plant) -> None:
    job_id = submit(plant, FORK)
    claims = take(plant)
    assert not delete(plant, job_id)
    fail(plant, claims["one"])
    assert not delete(plant, job_id, OTHER)
    assert delete(plant, job_id)
    assert not delete(plant, job_id)
    assert finish(plant, claims["two"], artifacts=[artifact(claims["two"], "0.png")])
    assert fail(plant, claims["three"])
    assert plant.sql("SELECT 1 FROM artifacts UNION ALL SELECT 1 FROM steps") == []
    assert {shard.state for shard in plant.shards(job_id)} == {"failed", "succeeded", "cancelled"}


def test_deleting_and_committing_at_once_do_not_wait_for_each_other(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(plant, FORK)
    claims = take(plant)
    fail(plant, claims["one"])
    half_way = threading.Event()

    def close_when_the_other_waits(*args: Any, **kwargs: Any) -> None:
        half_way.set()
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not somebody_waits_for_a_lock(plant):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        close_steps(*args, **kwargs)

    monkeypatch.setattr("shared.lifecycle.steps.close_steps", close_when_the_other_waits)
    with ThreadPoolExecutor(2) as threads:
        made = [artifact(claims["two"], "0.png")]
        commit = threads.submit(finish, plant, claims["two"], artifacts=made)
        assert half_way.wait(PATIENCE_SECONDS)
        gone = threads.submit(delete, plant, job_id)
        assert commit.result(PATIENCE_SECONDS)
        assert gone.result(PATIENCE_SECONDS)
    assert plant.sql("SELECT 1 FROM artifacts UNION ALL SELECT 1 FROM steps") == []
