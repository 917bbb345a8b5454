"""The API's routes against bare ones under the same gunicorn settings and the same load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kombu import Connection
from sqlalchemy import text

from bench.load import CONNECTIONS, Request, generator, rate, send
from bench.noop_figures import BODY, CHAT
from bench.plain import plain_celery
from bench.report import Measurement, interleave, median
from bench.rig import Rig, api_workers
from shared.doorbell_celery import doorbell_queue
from tests.plant import Plant

SUBMISSION = json.dumps({"endpoint": CHAT, "body": BODY})
JOB_SECONDS = 60
_JSON = {"Content-Type": "application/json"}
SERVED_REQUESTS = 1_000
"""By each API process before its memory is read."""

_FINISHED_JOBS = text("""
INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, result, shards_open,
                  rows_total, rows_completed, input_tokens, output_tokens, started_at, ended_at)
SELECT id, :tenant, 'generate', 'succeeded', 'generate', :endpoint, 'fake',
       CAST(:spec AS json), CAST(:result AS json), 0, 1, 1, 1, 40,
       clock_timestamp(), clock_timestamp()
  FROM (SELECT 'job_01k00000' || lpad(to_hex(n), 18, '0') AS id
          FROM generate_series(1, :jobs) n) numbered
""")
_THEIR_SHARDS = text("""
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, epoch, rows_completed,
                    started_at, ended_at)
SELECT id, tenant_id, 'text', 'generate', 0, 'succeeded', 1, 1, started_at, ended_at FROM jobs
 WHERE id LIKE 'job\\_01k00000%'
""")


def _authorized(plant: Plant, method: str, path: str, body: str = "") -> Request:
    return Request(method, path, {"Authorization": f"Bearer {plant.api_key}"}, body)


def _finished_job(plant: Plant) -> str:
    with plant.http() as http:
        job_id: str = http.post("/v1/jobs", content=SUBMISSION, headers=_JSON).json()["id"]
        job = http.get(f"/v1/jobs/{job_id}", params={"wait": JOB_SECONDS // 3}).json()
    if job["state"] != "succeeded":
        raise RuntimeError(f"the job to look at is {job['state']}")
    return job_id


def _seconds(rig: Rig) -> float:
    return 2.0 if rig.quick else 5.0


def get_job(rig: Rig) -> Measurement:
    """``GET /v1/jobs/{id}`` a second, over a Flask route that returns as much JSON."""
    with rig.plant() as plant, plain_celery(rig) as celery:
        plant.start()
        job = _authorized(plant, "GET", f"/v1/jobs/{_finished_job(plant)}")
        with plant.http() as http:
            payload = http.get(job.path).content
        folder = rig.folder("payload")
        (folder / "job.json").write_bytes(payload)
        task_id = celery.app.tasks["plain.stamp"].delay()
        task_id.get(timeout=JOB_SECONDS)
        with rig.plain_flask(
            broker_url=celery.broker_url,
            result_url=celery.result_url,
            payload=str(folder / "job.json"),
        ) as port:
            bare, task = Request("GET", "/bare"), Request("GET", f"/tasks/{task_id.id}")
            samples = _rates(
                rig,
                folder,
                {"plant": (plant.port, job), "bare": (port, bare), "celery": (port, task)},
            )
    return _ratio(samples, over="bare", payload_bytes=len(payload))


def post_job(rig: Rig) -> Measurement:
    """``POST /v1/jobs`` a second, each committed, over a Flask route that calls ``delay()``."""
    with rig.plant() as plant, plain_celery(rig, worker=False) as celery:
        _start_without_workers(plant)
        _declare_doorbells(plant)
        job = _authorized(plant, "POST", "/v1/jobs", SUBMISSION)
        with rig.plain_flask(broker_url=celery.broker_url, result_url=celery.result_url) as port:
            task = Request("POST", "/tasks", body=json.dumps(BODY))
            folder = rig.folder("load")
            samples = _rates(rig, folder, {"plant": (plant.port, job), "celery": (port, task)})
        committed = plant.scalar("SELECT count(*) FROM jobs")
    return _ratio(samples, over="celery", jobs_committed=committed, workers="none on either side")


def _rates(rig: Rig, folder: Path, sides: dict[str, tuple[int, Request]]) -> dict[str, list[float]]:
    """Requests a second of every side, after a second of each that counts for nothing."""
    for port, request in sides.values():
        rate(port, request, seconds=1.0, folder=folder)

    seconds = _seconds(rig)
    return interleave(
        rig.rounds,
        {
            name: partial(rate, port, request, seconds=seconds, folder=folder)
            for name, (port, request) in sides.items()
        },
    )


def _ratio(samples: dict[str, list[float]], *, over: str, **detail: object) -> Measurement:
    sides = {name: median(rates) for name, rates in samples.items()}
    about = {
        "unit": "requests/s",
        "sides": sides,
        "samples": samples,
        "connections": CONNECTIONS,
        "load_generator": generator(),
    }
    return Measurement(sides["plant"] / sides[over], about | detail)


def _start_without_workers(plant: Plant) -> None:
    plant.start_api()
    plant.wait_ready()
    plant.api_key = plant.new_key(plant.new_tenant("first"))


def _declare_doorbells(plant: Plant) -> None:
    """What a worker would do when it begins: else the broker would drop doorbells unrouted."""
    with Connection(plant.broker_url) as connection, connection.channel() as channel:
        doorbell_queue("text")(channel).declare()


# --- a big table --------------------------------------------------------------------------------


def get_job_with_million(rig: Rig) -> Measurement:
    """One GET of a job among 10⁶ finished ones, over one among 10³: p50 on one connection."""
    few, many = (1_000, 50_000) if rig.quick else (1_000, 1_000_000)
    with _plant_of(rig, few) as small, _plant_of(rig, many) as large:
        requests = {"few": _gets(small, few), "many": _gets(large, many)}
        ports = {"few": small.port, "many": large.port}

        def p50_ms(side: str) -> float:
            count = 300 if rig.quick else 1_000
            return float(send(ports[side], requests[side], connections=1, count=count)["p50_ms"])

        for side in requests:
            p50_ms(side)
        rounds = max(3, 2 * rig.rounds)
        samples = interleave(rounds, {"many": lambda: p50_ms("many"), "few": lambda: p50_ms("few")})
        shards = large.scalar("SELECT count(*) FROM shards")
    sides = {name: median(times) for name, times in samples.items()}
    return Measurement(
        sides["many"] / sides["few"],
        {
            "unit": "ms p50",
            "sides": sides,
            "samples": samples,
            "jobs": {"few": few, "many": many},
            "shards_of_many": shards,
            "jobs_looked_at": {name: len(found) for name, found in requests.items()},
        },
    )


@contextmanager
def _plant_of(rig: Rig, jobs: int) -> Iterator[Plant]:
    """An API over a database with so many finished jobs, analysed."""
    with rig.plant() as plant:
        _start_without_workers(plant)
        result = json.dumps({"object": "chat.completion", "choices": [{"text": "word " * 40}]})
        values = {
            "tenant": plant.scalar("SELECT id FROM tenants LIMIT 1"),
            "endpoint": CHAT,
            "spec": json.dumps(BODY),
            "result": result,
            "jobs": jobs,
        }
        with plant.engine.begin() as connection:
            # Foreign keys are sound by construction; to check each would take minutes.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(_FINISHED_JOBS, values)
            connection.execute(_THEIR_SHARDS)
        with plant.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE jobs, shards"))
            connection.execute(text("CHECKPOINT"))
        yield plant


def _gets(plant: Plant, jobs: int) -> list[Request]:
    """Requests for up to a thousand jobs from all over the table."""
    step = max(1, jobs // 1_000)
    numbers = range(1, jobs + 1, step)
    shuffled = sorted(numbers, key=lambda number: number * 2_654_435_761 % 2**32)
    return [_authorized(plant, "GET", f"/v1/jobs/job_01k00000{n:018x}") for n in shuffled]


# --- memory -------------------------------------------------------------------------------------


def api_resident_memory(rig: Rig) -> Measurement:
    """MB that the largest API process holds after it has served 1,000 requests and more."""
    with rig.plant() as plant:
        plant.start()
        job_id = _finished_job(plant)
        requests = [
            _authorized(plant, "POST", "/v1/jobs", SUBMISSION),
            *[_authorized(plant, "GET", f"/v1/jobs/{job_id}")] * 7,
            _authorized(plant, "GET", "/v1/jobs"),
            _authorized(plant, "GET", "/v1/models"),
        ]
        workers = api_workers(plant)
        # Twice its share for each, as the kernel deals connections unevenly.
        count = 2 * SERVED_REQUESTS * len(workers)
        send(plant.port, requests, connections=CONNECTIONS, count=count)
        resident = {f"worker_{n}": w.memory_info().rss / 1e6 for n, w in enumerate(workers)}
        own = {f"worker_{n}": w.memory_full_info().uss / 1e6 for n, w in enumerate(workers)}
    return Measurement(
        max(resident.values()),
        {"unit": "MB", "sides": resident, "own_mb": own, "requests": count},
    )
