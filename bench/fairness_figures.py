"""Tenants that compete: simulated beside other policies, and a flood on the plant beside its
simulation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import httpx2
from sqlalchemy import create_engine, text

from bench.fairness_simulation import FLOODED, POLICIES, Seen, see
from bench.report import Measurement
from bench.rig import Rig
from bench.simulation.load import SLICE_ROWS, flood, mixed
from shared.lifecycle import working
from tests.plant import SLOW, Plant, chat_row, wait_until

FLOOD_ROWS = 1_000_000
CALLS, QUICK_CALLS = 16, 4
CALL_PAUSE = 2.7
"""No multiple of what a slice takes: calls come at every moment of one."""
WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.2

FEW, MANY, QUICK = 1_000, 1_000_000, 50_000
CLAIMS = 40
WINDOW = 32

_COPIES = text("""
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, byte_start, byte_end,
                    first_line, row_count, model)
SELECT job_id, tenant_id, pool, stage, n, 'queued', byte_start, byte_end, first_line, row_count,
       model
  FROM shards, generate_series(1, :copies) n WHERE job_id = :job AND stage = 'generate'
""")

_WAITS = text("""
SELECT extract(epoch FROM s.created_at)::float8 AS asked,
       extract(epoch FROM s.ended_at)::float8 AS ended
  FROM shards s JOIN jobs j ON j.id = s.job_id
 WHERE s.tenant_id = :tenant AND s.stage = 'generate' AND s.state = 'succeeded'
 ORDER BY s.id
""")

_QUEUE = text("""
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, model)
SELECT :job, :tenant, 'text', 'generate', n, 'queued', 'm' FROM generate_series(1, :count) n
""")


# --- simulated ---------------------------------------------------------------------------------


def _mixed() -> dict[str, Seen]:
    load = mixed()
    return {policy: see(load, policy) for policy in POLICIES}


def slowdown_vs_first_come(rig: Rig) -> Measurement:
    """The worst tenant's mean slowdown in mixed load, over what first come, first served does."""
    seen = _mixed()
    sides = {policy: found.worst for policy, found in seen.items()}
    return Measurement(
        sides["fair"] / sides["first come"],
        {
            "unit": "x",
            "sides": sides,
            "mean_wait_seconds": {policy: found.mean for policy, found in seen.items()},
            "simulated": True,
        },
    )


def loads_vs_greedy(rig: Rig) -> Measurement:
    """Models loaded in mixed load, over what greedy affinity loads."""
    seen = _mixed()
    sides = {policy: found.loads for policy, found in seen.items()}
    return Measurement(
        sides["fair"] / sides["greedy affinity"],
        {"unit": "loads", "sides": sides, "simulated": True},
    )


# --- a flood on the plant ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flood:
    """What B's ten rows and C's calls met with behind A's million, and alone."""

    asked: dict[str, list[float]]
    """By tenant, in seconds from A's first slice."""
    waits: list[float]
    alone: float
    """Median seconds of a call while nobody else asked for anything."""


def _flood(rig: Rig) -> Flood:
    with rig.plant(models=(SLOW,)) as plant:
        plant.start(pools="text")
        tenants = {name: plant.new_tenant(name) for name in "ABC"}
        keys = {name: plant.new_key(tenant) for name, tenant in tenants.items()}
        for _ in range(4):  # the first one loads the model
            _call(plant, keys["C"])
            _settle(plant, tenants["C"])
        alone = [ended - asked for asked, ended in _times(plant, tenants["C"])][1:]
        _begin_flood(plant, keys["A"], tenants["A"])
        _ask(plant, keys, calls=QUICK_CALLS if rig.quick else CALLS)
        for name in FLOODED:
            _settle(plant, tenants[name])
        began = _times(plant, tenants["A"])[0][0]
        times = {name: _times(plant, tenants[name]) for name in FLOODED}
        times["C"] = times["C"][4:]
    return Flood(
        {name: [asked - began for asked, _ in found] for name, found in times.items()},
        [ended - asked for found in times.values() for asked, ended in found],
        median(alone),
    )


def _begin_flood(plant: Plant, key: str, tenant: str) -> None:
    """A batch of one whole slice, and as many copies of it behind it as make a million rows."""
    plant.api_key = key
    rows = [chat_row(number, model=SLOW.id) for number in range(SLICE_ROWS)]
    job = plant.submit_batch(rows)
    found = "SELECT count(*) FROM shards WHERE job_id = :job AND stage = 'generate'"
    wait_until(lambda: plant.scalar(found, job=job) == 1, WAIT_SECONDS, pause_seconds=LOOK_SECONDS)
    with plant.engine.begin() as connection:
        connection.execute(_COPIES, {"job": job, "copies": FLOOD_ROWS // SLICE_ROWS})
    ended = f"{found} AND state = 'succeeded'"
    wait_until(lambda: plant.scalar(ended, job=job) >= 2, WAIT_SECONDS, pause_seconds=LOOK_SECONDS)


def _ask(plant: Plant, keys: dict[str, str], *, calls: int) -> None:
    began = time.monotonic()
    for number in range(calls):
        time.sleep(max(0.0, began + number * CALL_PAUSE - time.monotonic()))
        _call(plant, keys["C"])
        if number == calls // 2:
            plant.api_key = keys["B"]
            plant.submit_batch([chat_row(row, model=SLOW.id) for row in range(10)])


def _call(plant: Plant, key: str) -> None:
    body = {"model": SLOW.id, "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx2.post(
        f"{plant.url}/v1/jobs",
        json={"endpoint": "/v1/chat/completions", "body": body},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    answer.raise_for_status()


def _settle(plant: Plant, tenant: str) -> None:
    """Waits until nothing of the tenant's is open."""
    open_jobs = "SELECT count(*) FROM jobs WHERE tenant_id = :id AND state IN ('queued', 'running')"
    wait_until(lambda: plant.scalar(open_jobs, id=tenant) == 0, WAIT_SECONDS, pause_seconds=0.05)


def _times(plant: Plant, tenant: str) -> list[tuple[float, float]]:
    with plant.engine.connect() as connection:
        rows = connection.execute(_WAITS, {"tenant": tenant})
        return [(row.asked, row.ended) for row in rows]


def _measured(rig: Rig) -> tuple[Flood, Seen]:
    """A flood, and the simulation of the same requests at the same times."""
    measured = _flood(rig)
    load = flood(
        seconds=measured.alone,
        calls=tuple(measured.asked["C"]),
        small_at=measured.asked["B"][0],
        until=max(measured.asked["C"]) + WAIT_SECONDS,
    )
    return measured, see(load, "fair", only=FLOODED)


def flood_wait(rig: Rig) -> Measurement:
    """The longest wait behind a flood, over its bound: twice as long as alone, and one shard."""
    measured, simulated = _measured(rig)
    bound = 3 * measured.alone
    sides = {"longest": max(measured.waits), "bound": bound, "simulated": simulated.longest}
    return Measurement(sides["longest"] / bound, _detail(measured, simulated) | {"sides": sides})


def flood_vs_simulation(rig: Rig) -> Measurement:
    """The mean wait behind a flood, over what the simulator says of it, or the other way round."""
    measured, simulated = _measured(rig)
    sides = {"measured": fmean(measured.waits), "simulated": simulated.mean}
    ratio = sides["measured"] / sides["simulated"]
    return Measurement(max(ratio, 1 / ratio), _detail(measured, simulated) | {"sides": sides})


def _detail(measured: Flood, simulated: Seen) -> dict[str, Any]:
    return {
        "unit": "s",
        "alone_seconds": measured.alone,
        "waits": measured.waits,
        "simulated_mean": simulated.mean,
        "simulated_longest": simulated.longest,
        "rows_of_the_flood": FLOOD_ROWS,
        "bound": "2 x alone + one shard",
    }


# --- what a claim costs ------------------------------------------------------------------------


def claim_with_million(rig: Rig) -> Measurement:
    """Milliseconds of a dispatch and a claim for which two tenants compete, one with 10⁶ shards
    queued, over the same with 10³."""
    many = QUICK if rig.quick else MANY
    sides = {"many": _claim_milliseconds(rig, many), "few": _claim_milliseconds(rig, FEW)}
    return Measurement(
        sides["many"] / sides["few"],
        {"unit": "ms p50", "sides": sides, "queued": {"many": many, "few": FEW}},
    )


def _claim_milliseconds(rig: Rig, queued: int) -> float:
    with rig.database() as url:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                for tenant, count in (("ten_a", queued), ("ten_b", FEW)):
                    values = {"tenant": tenant, "job": f"batch_{tenant}", "count": count}
                    connection.execute(
                        text("INSERT INTO tenants (id, name) VALUES (:tenant, 'bench')"), values
                    )
                    connection.execute(
                        text(
                            "INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec)"
                            " VALUES (:job, :tenant, 'batch', 'running', 'generate', '-', '{}')"
                        ),
                        values,
                    )
                    connection.execute(_QUEUE, values)
                connection.execute(text("ANALYZE"))
                working.open_session(
                    connection, session_id="w", host="h", pid=1, pools=["text"], ttl_seconds=3_600
                )
                return median(_claim(engine) for _ in range(CLAIMS))
        finally:
            engine.dispose()


def _claim(engine: Any) -> float:
    with engine.connect() as connection:
        began = time.perf_counter()
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as other:
            working.dispatch(other, pool="text", window=WINDOW)
            other.commit()
        taken = working.claim(
            connection, session_id="w", pools=["text"], max_shards=16, max_rows=1_000
        )
        seconds = time.perf_counter() - began
    if {claim.tenant_id for claim in taken} != {"ten_a", "ten_b"}:
        raise RuntimeError("the tenants did not compete")
    return seconds * 1_000
