"""The ready window: no tenant over it, tenants in turn, any number of dispatchers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.db.shards import waiting_pools
from shared.lifecycle import working
from shared.lifecycle.working import ReleaseReason
from tests.integration.protocol import OTHER, TENANT, Plant

WINDOW = 4
BIG, SMALL = TENANT, OTHER


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


def submit(plant: Plant, tenant: str, count: int, *, pool: str = "text") -> list[str]:
    return [plant.generation(tenant, pool=pool, window=WINDOW) for _ in range(count)]


def ready(plant: Plant, pool: str = "text") -> Counter[str]:
    rows = plant.sql("SELECT tenant_id FROM shards WHERE state = 'ready' AND pool = :p", p=pool)
    return Counter(row.tenant_id for row in rows)


def turns(plant: Plant) -> list[str]:
    """The tenants in the order in which their shards became ready."""
    rows = plant.sql("SELECT tenant_id FROM shards WHERE state = 'ready' ORDER BY ready_seq")
    return [row.tenant_id for row in rows]


def test_submitting_fills_the_window_and_no_more(plant: Plant) -> None:
    submit(plant, BIG, 10)
    assert ready(plant) == {BIG: WINDOW}
    assert plant.dispatch(window=WINDOW) == 0


def test_a_late_small_tenant_takes_turns_with_what_is_ready(plant: Plant) -> None:
    submit(plant, BIG, 100)
    submit(plant, SMALL, 2)
    assert turns(plant) == [BIG] * WINDOW + [SMALL] * 2
    session = plant.session()
    claimed = [claim.tenant_id for claim in plant.claim(session, max_shards=4)]
    assert claimed == [BIG, SMALL] * 2


def test_whoever_waits_is_not_overtaken_by_the_same_tenants_next_job(plant: Plant) -> None:
    first = submit(plant, BIG, WINDOW + 1)
    plant.claim(plant.session(), max_shards=WINDOW)
    late = submit(plant, BIG, 1)
    assert ready(plant) == {}  # though the window is empty: first come, first served
    plant.dispatch(window=WINDOW)
    assert [claim.job_id for claim in plant.claim()] == [first[-1], *late]


def test_dispatching_interleaves_tenants(plant: Plant) -> None:
    plant.tenant("ten_c")
    for tenant, count in [(BIG, 50), (SMALL, 3), ("ten_c", 50)]:
        plant.sql(
            "INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec) VALUES"
            " (:job, :tenant, 'batch', 'running', 'generate', '/v1/embeddings', '{}')",
            job=f"batch_{tenant}",
            tenant=tenant,
        )
        plant.sql(
            "INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state)"
            " SELECT :job, :tenant, 'text', 'generate', n, 'queued'"
            " FROM generate_series(1, :count) n",
            job=f"batch_{tenant}",
            tenant=tenant,
            count=count,
        )
    assert plant.dispatch(window=WINDOW) == WINDOW + 3 + WINDOW
    assert turns(plant) == [BIG, SMALL, "ten_c"] * 3 + [BIG, "ten_c"]
    assert plant.dispatch(window=WINDOW) == 0


def test_priority_comes_before_age_within_a_tenant(plant: Plant) -> None:
    submit(plant, BIG, WINDOW)
    low, high = (
        plant.generation(BIG, window=WINDOW, priority=5),
        plant.generation(BIG, window=WINDOW, priority=1),
    )
    plant.session()
    plant.claim(max_shards=WINDOW)
    assert plant.dispatch(window=1) == 1
    assert [claim.job_id for claim in plant.claim()] == [high]
    assert plant.dispatch(window=1) == 1
    assert [claim.job_id for claim in plant.claim()] == [low]


def test_pools_have_windows_of_their_own(plant: Plant) -> None:
    submit(plant, BIG, 6)
    submit(plant, BIG, 6, pool="image")
    assert (ready(plant), ready(plant, "image")) == ({BIG: WINDOW}, {BIG: WINDOW})
    with plant.connection() as connection:
        assert waiting_pools(connection) == ["image", "text"]
    plant.claim(plant.session(), pools=["image"])
    assert plant.dispatch("image", window=WINDOW) == 2
    with plant.connection() as connection:
        assert waiting_pools(connection) == ["text"]


def test_a_second_dispatcher_at_work_does_not_widen_the_window(plant: Plant) -> None:
    submit(plant, BIG, 20)
    plant.claim(plant.session())
    with plant.engine.begin() as first:
        assert working.dispatch(first, pool="text", window=WINDOW) == WINDOW
        assert plant.dispatch(window=WINDOW) == 0  # the first one has not committed yet
    assert plant.dispatch(window=WINDOW) == 0
    assert ready(plant) == {BIG: WINDOW}


def test_dispatchers_and_claimers_at_once_keep_the_window_and_lose_nothing(plant: Plant) -> None:
    jobs = set(submit(plant, BIG, 200)) | set(submit(plant, SMALL, 40))
    plant.session()
    claimed: list[str] = []
    finished, over = threading.Event(), []

    def dispatcher() -> None:
        while not finished.is_set():
            plant.dispatch(window=WINDOW)
            most = max(ready(plant).values(), default=0)
            if most > WINDOW:
                over.append(most)

    def claimer() -> None:
        while len(claimed) < len(jobs):
            claimed.extend(claim.job_id for claim in plant.claim(max_shards=3))

    with ThreadPoolExecutor(4) as threads:
        dispatchers = [threads.submit(dispatcher) for _ in range(2)]
        claimers = [threads.submit(claimer) for _ in range(2)]
        try:
            for future in claimers:
                future.result(timeout=120)
        finally:
            finished.set()
        for future in dispatchers:
            future.result(timeout=30)
    assert over == []
    assert Counter(claimed) == dict.fromkeys(jobs, 1)


def test_shards_that_come_back_keep_their_turn(plant: Plant) -> None:
    first, *others = submit(plant, BIG, 3)
    plant.session()
    claim = plant.claim_one(max_shards=1)
    assert claim.job_id == first
    plant.release("w1", claim.held, ReleaseReason.PREEMPTED)
    assert [claim.job_id for claim in plant.claim()] == [first, *others]


def test_a_tenants_priority_reorders_its_own_places_only(plant: Plant) -> None:
    plant.session("w1")
    late = [plant.generation(BIG, priority=5, window=WINDOW) for _ in range(2)]
    other = plant.generation(SMALL, priority=5, window=WINDOW)
    urgent = plant.generation(BIG, priority=0, window=WINDOW)

    claimed = [claim.job_id for claim in plant.claim(max_rows=10)]

    assert claimed == [urgent, late[0], other, late[1]]


def test_a_tenant_that_calls_everything_urgent_starves_nobody(plant: Plant) -> None:
    """With room for a single row, a tenant that keeps its window full of urgent work still lets
    another's job through within one window."""
    plant.session("w1")
    for _ in range(WINDOW):
        plant.generation(BIG, priority=0, window=WINDOW)
    modest = plant.generation(SMALL, priority=9, window=WINDOW)
    turns = 0
    while True:
        [claim] = plant.claim(max_rows=1)
        turns += 1
        if claim.job_id == modest:
            break
        plant.generation(BIG, priority=0, window=WINDOW)
        plant.dispatch(window=WINDOW)
    assert turns <= WINDOW + 1
