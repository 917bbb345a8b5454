"""Claims of several pools at once, of jobs that have shards in each of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from shared import lifecycle
from shared.ids import new_job_id
from shared.plans.base import BUNDLE, Step
from tests.integration.protocol import CHAT, OTHER, TENANT, WINDOW, Plant
from tests.plant import wait_until

PATIENCE_SECONDS = 120.0
THIRD = "ten_c"
TENANTS = (TENANT, OTHER, THIRD)


@pytest.fixture(name="plant")
def plant_fixture(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


def graph(plant: Plant, tenant: str) -> str:
    """A job with a step in each of two pools that may begin at once."""
    job_id = new_job_id()
    steps = [
        Step(name=pool, pool=pool, endpoint=CHAT, model=pool, body={}, needs=())
        for pool in ("text", "image")
    ]
    steps.append(
        Step(name="last", pool="upkeep", endpoint=BUNDLE, model=None, body={},
             needs=("text", "image"))
    )  # fmt: skip
    with plant.engine.begin() as connection:
        lifecycle.submit_plan(
            connection, job_id=job_id, tenant_id=tenant, kind="campaign",
            endpoint="/v1/campaigns", model="m", body={}, steps=steps, window=WINDOW,
        )  # fmt: skip
    return job_id


def waiting_for_locks(plant: Plant) -> int:
    return int(
        plant.scalar(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


def test_pools_whose_lines_run_against_each_other_claim_the_same_jobs(plant: Plant) -> None:
    """What tenants were given differs by pool; the jobs' rows are locked in one order all the
    same, and no claim has to be given up for another."""
    plant.tenant(THIRD)
    jobs = [graph(plant, tenant) for tenant in TENANTS]
    for tenant, given in zip(TENANTS, (1.0, 2.0, 3.0), strict=True):
        plant.sql(
            "INSERT INTO shares VALUES ('text', :tenant, :given), ('image', :tenant, 9 - :given)",
            tenant=tenant,
            given=given,
        )
        for pool in ("text", "image"):
            plant.generation(tenant, pool=pool)  # something is left: there is a choice
    plant.session("writer")
    plant.session("painter", pools=["image"])
    with ThreadPoolExecutor(2) as threads, plant.engine.connect() as held:
        held.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": jobs[1]})
        written = threads.submit(plant.claim, "writer", pools=["text"], max_shards=3)
        wait_until(lambda: waiting_for_locks(plant) == 1, PATIENCE_SECONDS)
        drawn = threads.submit(plant.claim, "painter", pools=["image"], max_shards=3)
        wait_until(lambda: waiting_for_locks(plant) == 2, PATIENCE_SECONDS)
        held.rollback()
        claimed = [
            [claim.job_id for claim in found.result(PATIENCE_SECONDS)] for found in (written, drawn)
        ]
    assert claimed == [jobs, jobs[::-1]]
    assert {plant.job(job_id).state for job_id in jobs} == {"running"}
