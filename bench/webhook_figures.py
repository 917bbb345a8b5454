"""How many webhooks one upkeep worker sends, and that dead receivers cost a batch nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy import text

from bench.batches import run_batch, write_rows
from bench.report import Measurement, interleave, median
from bench.rig import Rig
from tests.plant import Plant, wait_until
from tests.services.ports import reserve_port

ENDPOINTS = 4
"""Eight requests to one receiver at a time: these keep all 32 senders busy."""
DEAD_ENDPOINTS = 8
SECONDS = 600.0
BATCH_SECONDS = 900.0

_ENDED_JOBS = text("""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, shards_open,
                      rows_total, rows_completed, ended_at)
    SELECT 'job_' || :prefix || lpad(to_hex(n), 18, '0'), :tenant, 'generate', 'succeeded',
           'generate', '/v1/chat/completions', 'fake', CAST('{}' AS json), 0, 1, 1,
           clock_timestamp()
      FROM generate_series(1, :jobs) n
    RETURNING id, tenant_id)
INSERT INTO events (tenant_id, job_id, type) SELECT tenant_id, id, 'job.succeeded' FROM job
""")
_SENT = "SELECT count(*) FROM webhook_deliveries WHERE status = 'delivered'"
_RATE = """
SELECT count(*) / extract(epoch FROM max(ended_at) - min(created_at)) FROM webhook_deliveries
 WHERE status = 'delivered' AND about LIKE :about
"""


@contextmanager
def _receiver(rig: Rig, port: int, *mode: str) -> Iterator[None]:
    with rig.process("receiver", "-m", "bench.plain_receiver", str(port), *mode):
        wait_until(lambda: _listens(port), 30)
        yield


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _subscribe(plant: Plant, port: int, count: int) -> list[str]:
    with plant.http() as http:
        made = [
            http.post(
                "/v1/webhook_endpoints",
                json={
                    "name": "bench",
                    "url": f"http://127.0.0.1:{port}/hook",
                    "event_types": ["job.succeeded"],
                },
            ).raise_for_status()
            for _ in range(count)
        ]
    return [str(answer.json()["id"]) for answer in made]


def _end_jobs(plant: Plant, count: int, prefix: str) -> None:
    """So many jobs end this instant, as far as webhooks can tell."""
    with plant.engine.begin() as connection:
        tenant = connection.execute(text("SELECT id FROM tenants LIMIT 1")).scalar_one()
        values = {"tenant": tenant, "jobs": count, "prefix": prefix}
        connection.execute(_ENDED_JOBS, values)


def webhooks_per_second(rig: Rig) -> Measurement:
    """Deliveries a second of one upkeep worker, from the first that was made to the last whose
    answer was written down; plain HTTP to a receiver on this machine that answers at once."""
    jobs = 250 if rig.quick else 2_000
    port = reserve_port()
    samples: list[float] = []
    with (
        _receiver(rig, port),
        rig.plant(settings={"WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{port}"}) as plant,
    ):
        plant.start(workers=0)
        _subscribe(plant, port, ENDPOINTS)
        for number in range(rig.rounds):
            prefix = f"01k{number:05d}"
            _end_jobs(plant, jobs, prefix)
            total = jobs * ENDPOINTS * (number + 1)
            wait_until(lambda: plant.scalar(_SENT) == total, SECONDS)  # noqa: B023
            samples.append(float(plant.scalar(_RATE, about=f"job\\_{prefix}%")))
    detail = {"unit": "deliveries/s", "samples": samples, "deliveries": jobs * ENDPOINTS}
    return Measurement(median(samples), detail)


def batch_with_dead_endpoint(rig: Rig) -> Measurement:
    """Rows a second of a batch while thousands of webhooks wait for receivers that accept and never
    answer, over the same without any."""
    rows, jobs = (5_000, 100) if rig.quick else (150_000, 500)
    port = reserve_port()
    source = write_rows(rig.folder("input") / "input.jsonl", rows)
    with (
        _receiver(rig, port, "silent"),
        rig.plant(settings={"WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{port}"}) as plant,
    ):
        plant.start()
        dead = _subscribe(plant, port, DEAD_ENDPOINTS)
        run_batch(plant, write_rows(rig.folder("input") / "warm.jsonl", 100), BATCH_SECONDS)

        def rate(*, waiting: bool) -> float:
            _let_wait(plant, dead, jobs if waiting else 0)
            batch = run_batch(plant, source, BATCH_SECONDS)
            return batch.rows / batch.seconds

        samples = interleave(
            rig.rounds,
            {"dead": partial(rate, waiting=True), "none": partial(rate, waiting=False)},
        )
    sides = {name: median(rates) for name, rates in samples.items()}
    return Measurement(
        sides["dead"] / sides["none"],
        {
            "unit": "rows/s",
            "sides": sides,
            "samples": samples,
            "rows": rows,
            "dead_endpoints": DEAD_ENDPOINTS,
            "waiting": jobs * DEAD_ENDPOINTS,
        },
    )


def _let_wait(plant: Plant, endpoints: list[str], jobs: int) -> None:
    """So many deliveries wait for each endpoint, and senders hang on the first of them; 0: they
    are told nothing."""
    with plant.http() as http:
        for endpoint_id in endpoints:
            path = f"/v1/webhook_endpoints/{endpoint_id}"
            http.post(path, json={"enabled": jobs > 0}).raise_for_status()
    with plant.engine.begin() as connection:
        connection.execute(text("DELETE FROM webhook_deliveries"))
        connection.execute(text("DELETE FROM webhook_circuits"))
    if jobs == 0:
        return
    _end_jobs(plant, jobs, f"01k{int(time.monotonic()) % 100_000:05d}")
    hanging = "SELECT count(*) FROM webhook_deliveries WHERE lease IS NOT NULL"
    wait_until(lambda: plant.scalar(hanging) > 0, 60)
