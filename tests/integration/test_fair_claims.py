"""Claims while tenants compete: by weight, by loaded model, under a cap, and at the same time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.ids import new_batch_id
from shared.lifecycle import working
from shared.lifecycle.working import Claim, ReleaseReason
from shared.sharding import Slice
from shared.states import ShardState
from tests.integration import graphs
from tests.integration.protocol import OTHER, TENANT, Plant

BIG, SMALL = TENANT, OTHER
SLICE = 256
FLOOD_SLICES = 3_907
"""A million rows, nearly."""


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    plant.session("w1")
    yield plant
    plant.close()


def slices(plant: Plant, tenant: str, count: int, *, rows: int = 1, model: str | None = "m") -> str:
    """A batch that was validated into so many slices, which all wait."""
    job = new_batch_id()
    plant.sql(
        "INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec, shards_open)"
        " VALUES (:job, :tenant, 'batch', 'running', 'generate', '/v1/embeddings', '{}', :count)",
        job=job,
        tenant=tenant,
        count=count,
    )
    plant.sql(
        "INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, row_count, model)"
        " SELECT :job, :tenant, 'text', 'generate', n, 'queued', :rows, :model"
        " FROM generate_series(1, :count) n",
        job=job,
        tenant=tenant,
        count=count,
        rows=rows,
        model=model,
    )
    plant.dispatch()
    return job


def one(plant: Plant, session: str = "w1", *, loaded: tuple[str, ...] = ()) -> Claim:
    """What a worker with room for a row takes next."""
    with plant.connection() as connection:
        (claim,) = working.claim(
            connection,
            session_id=session,
            pools=["text"],
            max_shards=64,
            max_rows=1,
            loaded=loaded,
        )
    plant.dispatch()
    return claim


def shares(plant: Plant) -> dict[str, float]:
    rows = plant.sql("SELECT tenant_id, virtual_time FROM shares WHERE pool = 'text'")
    return {row.tenant_id: row.virtual_time for row in rows}


def running(plant: Plant, tenant: str) -> int:
    found: int = plant.scalar(
        "SELECT count(*) FROM shards WHERE state = 'running' AND tenant_id = :tenant",
        tenant=tenant,
    )
    return found


# --- shares ------------------------------------------------------------------------------------


def test_ten_rows_and_a_call_behind_a_million_rows_are_next(plant: Plant) -> None:
    plant.tenant("ten_c")
    slices(plant, BIG, FLOOD_SLICES, rows=SLICE)
    for _ in range(3):
        claim = one(plant)
        assert claim.tenant_id == BIG
        plant.finish_slice("w1", claim)
    slices(plant, SMALL, 1, rows=10)
    plant.generation("ten_c")
    assert Counter(one(plant).tenant_id for _ in range(2)) == {SMALL: 1, "ten_c": 1}
    assert one(plant).tenant_id == BIG
    slices(plant, SMALL, 1, rows=10)
    plant.generation("ten_c")
    assert Counter(one(plant).tenant_id for _ in range(2)) == {SMALL: 1, "ten_c": 1}


def test_tenants_get_shares_as_their_weights(plant: Plant) -> None:
    plant.sql("UPDATE tenants SET weight = 3 WHERE id = :id", id=SMALL)
    for tenant in (BIG, SMALL):
        slices(plant, tenant, 60)
    given: Counter[str] = Counter()
    for _ in range(40):
        given[one(plant).tenant_id] += 1
        assert abs(given[BIG] - given[SMALL] / 3) <= 1
    assert given == {BIG: 10, SMALL: 30}


def test_a_weight_counts_also_where_one_claim_takes_much(plant: Plant) -> None:
    plant.sql("UPDATE tenants SET weight = 3 WHERE id = :id", id=SMALL)
    for tenant in (BIG, SMALL):
        slices(plant, tenant, 200)
    given: Counter[str] = Counter()
    while sum(given.values()) < 160:
        given.update(claim.tenant_id for claim in plant.claim(max_shards=64))
        plant.dispatch()
    assert given[SMALL] == pytest.approx(3 * given[BIG], abs=4)


def test_a_weight_is_above_zero_and_at_most_a_thousand(plant: Plant) -> None:
    for weight in (0, -1, 1000.5, "NaN", "Infinity"):
        with pytest.raises(Exception, match="ck_tenants_weight"):
            plant.sql(f"UPDATE tenants SET weight = '{weight}'")
    plant.sql("UPDATE tenants SET weight = 1000")


def test_waiting_for_nothing_earns_no_credit(plant: Plant) -> None:
    plant.tenant("ten_c")
    for tenant in (BIG, "ten_c"):
        slices(plant, tenant, 60)
    for _ in range(40):
        one(plant)
    slices(plant, SMALL, 60)
    given = Counter(one(plant).tenant_id for _ in range(30))
    assert given[SMALL] in {10, 11}


def test_expected_seconds_count_instead_of_rows(plant: Plant) -> None:
    job = slices(plant, BIG, 20)
    plant.sql("UPDATE shards SET expected_seconds = 9 WHERE job_id = :job", job=job)
    slices(plant, SMALL, 60)
    given = Counter(one(plant).tenant_id for _ in range(40))
    assert given[BIG] in {4, 5}


def test_nothing_is_counted_while_there_is_room_for_all(plant: Plant) -> None:
    slices(plant, BIG, 30)
    assert len(plant.claim()) == 30
    plant.generation(BIG)
    plant.generation(SMALL)
    assert len(plant.claim()) == 2  # room for all
    assert shares(plant) == {}


def test_what_is_counted_is_what_was_claimed(plant: Plant) -> None:
    slices(plant, BIG, 40, rows=3)
    slices(plant, SMALL, 40, rows=2)
    claims = plant.claim(max_rows=20)
    spent = Counter[str]()
    for claim in claims:
        spent[claim.tenant_id] += claim.row_count
    found = shares(plant)
    assert {tenant: found[tenant] for tenant in spent} == spent
    assert 0 < found[""] <= max(spent.values())


def test_a_delayed_shard_is_not_in_line(plant: Plant) -> None:
    slices(plant, BIG, 40)
    slices(plant, SMALL, 1)
    for _ in range(2):
        claim = one(plant)
        if claim.tenant_id == SMALL:
            plant.release("w1", claim.held, ReleaseReason.ERROR, delay_seconds=3_600)
    assert {one(plant).tenant_id for _ in range(3)} == {BIG}


def test_a_dead_or_draining_session_gets_nothing(plant: Plant) -> None:
    for tenant in (BIG, SMALL):
        slices(plant, tenant, 40)
    plant.session("w2")
    plant.expire_session("w2")
    plant.session("w3")
    with plant.connection() as connection:
        working.drain_session(connection, "w3")
    assert plant.claim("w2", max_shards=5) == plant.claim("w3", max_shards=5) == []
    assert shares(plant) == {}


# --- models ------------------------------------------------------------------------------------


def test_a_loaded_model_goes_first_within_the_bound(plant: Plant) -> None:
    slices(plant, BIG, 40, model="x")
    slices(plant, SMALL, 40, model="y")
    first = {one(plant).tenant_id for _ in range(2)}
    assert first == {BIG, SMALL}  # whoever has nothing waits for no model
    assert {one(plant, loaded=("y",)).model or "y" for _ in range(6)} == {"y"}
    assert running(plant, SMALL) == 7
    assert {one(plant, loaded=("x",)).tenant_id for _ in range(3)} == {BIG}


def test_patience_has_an_end(plant: Plant) -> None:
    slices(plant, BIG, 40, rows=SLICE, model="x")
    slices(plant, SMALL, 40, rows=SLICE, model="y")
    given = [one(plant, loaded=("y",)).tenant_id for _ in range(12)]
    ahead = 0
    for tenant in given:
        ahead += 1 if tenant == SMALL else -1
        assert ahead <= 1 + 1024 / SLICE
    assert given.count(BIG) >= 3


def test_shards_know_their_model_and_what_they_are_expected_to_take(plant: Plant) -> None:
    (call,) = plant.shards(plant.generation())
    assert (call.model, call.expected_seconds) == ("m", None)
    steps = {shard.pool: shard.model for shard in plant.shards(graphs.submit(plant))}
    assert steps == {"text": "m", "image": "m", "upkeep": None}
    batch = plant.batch()
    claim = plant.claim_one(pools=["upkeep"], max_shards=1)
    cuts = [
        Slice(0, 0, 100, 1, 2, "text", model="a", seconds=1.5),
        Slice(1, 100, 200, 3, 2, "text"),
    ]
    with plant.engine.begin() as connection:
        assert working.finish_validation(connection, "w1", claim.held, slices=cuts)
    found = [shard for shard in plant.shards(batch) if shard.stage == "generate"]
    assert [(s.model, s.expected_seconds) for s in found] == [("a", 1.5), (None, None)]


# --- caps --------------------------------------------------------------------------------------


def cap(plant: Plant, tenant: str, shards: int) -> None:
    plant.sql("UPDATE tenants SET max_running_shards = :n WHERE id = :id", n=shards, id=tenant)


def test_a_capped_tenant_has_no_more_running_in_all_pools(plant: Plant) -> None:
    cap(plant, BIG, 3)
    for _ in range(4):
        plant.generation(BIG)
        plant.generation(BIG, pool="image")
    assert len(plant.claim(pools=["image"], max_shards=2)) == 2
    (last,) = plant.claim(pools=["text", "image"])
    assert plant.claim(pools=["text", "image"]) == []
    assert plant.finish("w1", last.held)
    assert len(plant.claim(pools=["text", "image"])) == 1


def test_a_cap_of_nothing_keeps_a_tenant_waiting_and_no_other(plant: Plant) -> None:
    cap(plant, BIG, 0)
    plant.generation(BIG)
    mine = plant.generation(SMALL)
    assert [claim.job_id for claim in plant.claim()] == [mine]
    assert plant.claim() == []
    cap(plant, BIG, 1)
    assert len(plant.claim()) == 1


def test_a_cap_holds_when_many_claim_at_once(plant: Plant) -> None:
    cap(plant, BIG, 5)
    slices(plant, BIG, 30)
    slices(plant, SMALL, 30)
    together = threading.Barrier(4)

    def claimer() -> list[Claim]:
        got = []
        together.wait(60)
        for _ in range(6):
            got += plant.claim(max_shards=2)
        return got

    with ThreadPoolExecutor(4) as threads:
        claims = [f.result(timeout=120) for f in [threads.submit(claimer) for _ in range(4)]]
    for _ in range(5):  # whoever lost a race leaves it to the next claim
        plant.claim(max_shards=2)
    assert running(plant, BIG) == 5
    assert sum(claim.tenant_id == BIG for got in claims for claim in got) <= 5


# --- at the same time --------------------------------------------------------------------------


def test_claims_at_once_take_each_shard_once_and_count_all_they_took(plant: Plant) -> None:
    tenants = [BIG, SMALL, "ten_c", "ten_d"]
    for tenant in tenants[2:]:
        plant.tenant(tenant)
    for tenant in tenants:
        slices(plant, tenant, 30)
        slices(plant, tenant, 10, model="n")
    taken: list[Claim] = []
    give_up = time.monotonic() + 120

    def claimer(number: int) -> None:
        while len(taken) < 160 and time.monotonic() < give_up:
            with plant.connection() as connection:
                taken.extend(
                    working.claim(
                        connection,
                        session_id="w1",
                        pools=["text"],
                        max_shards=3,
                        max_rows=100,
                        loaded=["mn"[number % 2]],
                    )
                )
            plant.dispatch()

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(claimer, number) for number in range(4)]:
            future.result()
    assert Counter(claim.shard_id for claim in taken).most_common(1)[0][1] == 1
    assert plant.scalar("SELECT count(*) FROM shards WHERE state = 'running'") == 160
    found = shares(plant)
    assert all(found[tenant] > 0 for tenant in tenants)


def test_another_workers_claim_is_skipped_and_the_next_in_line_taken(plant: Plant) -> None:
    for tenant in (BIG, SMALL):
        slices(plant, tenant, 10)
    with plant.engine.begin() as other:
        rows = other.exec_driver_sql(
            "SELECT id FROM shards WHERE state = 'ready' ORDER BY ready_seq LIMIT 4 FOR UPDATE"
        )
        locked = set(rows.scalars())
        claims = plant.claim(max_shards=6)
        assert len(claims) == 6
        assert not locked & {claim.shard_id for claim in claims}


def test_what_comes_back_is_claimed_again(plant: Plant) -> None:
    for tenant in (BIG, SMALL):
        slices(plant, tenant, 10)
    before = plant.claim(max_shards=4)
    for claim in before:
        assert plant.release("w1", claim.held, ReleaseReason.PREEMPTED) == ShardState.READY
    again = {claim.shard_id: claim.epoch for claim in plant.claim(max_shards=20)}
    assert all(again[claim.shard_id] == claim.epoch + 1 for claim in before)
