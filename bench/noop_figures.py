"""Single jobs against plain Celery: how many a second, and how soon one starts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from bench.load import CONNECTIONS, Request, send
from bench.plain import PlainCelery, plain_celery
from bench.report import Measurement, interleave, median
from bench.rig import Rig
from shared import lifecycle
from shared.db.session import make_engine
from shared.doorbell import Ringer
from shared.ids import new_job_id
from shared.settings import Settings
from tests.plant import Plant, wait_until

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
WINDOW: int = Settings.model_fields["ready_window"].default
DONE_SECONDS = 120.0
LOOK_SECONDS = 0.02
IDLE_SECONDS = 0.1
"""Between two jobs of the latency figure: longer than any pause of the plant but its poll."""
UNDISTURBED_SECONDS = 0.1
"""After a submit, before the first look whether it has ended: looking would slow it down."""
_ENDED = text("SELECT count(*) FROM jobs WHERE state = 'succeeded'")
_STARTED = text(
    "SELECT extract(epoch FROM started_at)::float8 FROM jobs WHERE id = :id AND state = 'succeeded'"
)


@dataclass(frozen=True, slots=True)
class Client:
    """A Python process that submits by calls, without HTTP: what ``task.delay()`` is to Celery."""

    connection: Connection
    ringer: Ringer
    tenant_id: str

    def submit(self) -> str:
        """The id of a job that is committed and announced."""
        job_id = new_job_id()
        lifecycle.submit_generation(
            self.connection,
            job_id=job_id,
            tenant_id=self.tenant_id,
            pool="text",
            endpoint=CHAT,
            model="fake",
            body=BODY,
            window=WINDOW,
        )
        self.ringer.ring("text")
        return job_id

    def ended(self) -> int:
        return int(self.connection.execute(_ENDED).scalar_one())


@contextmanager
def client_of(plant: Plant) -> Iterator[Client]:
    engine = make_engine(plant.database_url, process="bench")
    ringer = Ringer(plant.broker_url)
    tenant_id = plant.scalar("SELECT id FROM tenants LIMIT 1")
    try:
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            yield Client(connection, ringer, tenant_id)
    finally:
        ringer.close()
        engine.dispose()


@contextmanager
def _both(rig: Rig) -> Iterator[tuple[Plant, Client, PlainCelery]]:
    """A plant with one text worker, its client, and Celery with two processes; all warm."""
    with ExitStack() as stack:
        plant = stack.enter_context(rig.plant()).start()
        client = stack.enter_context(client_of(plant))
        celery = stack.enter_context(plain_celery(rig))
        client.submit()
        _wait(client.ended, 1)
        yield plant, client, celery


def _wait(count: Callable[[], int], wanted: int) -> None:
    wait_until(
        lambda: count() >= wanted, DONE_SECONDS, lambda: f"{count()} of {wanted}", LOOK_SECONDS
    )


def _rate(submit_all: Callable[[], object], count: Callable[[], int], jobs: int) -> float:
    """Jobs a second from the first submit until the last has ended, as the database counts."""
    wanted = count() + jobs
    began = time.perf_counter()
    submit_all()
    _wait(count, wanted)
    return jobs / (time.perf_counter() - began)


def noop_jobs(rig: Rig) -> Measurement:
    """Jobs a second, submit to terminal, over ``delay()`` to result."""
    jobs = 500 if rig.quick else 3_000
    with (
        _both(rig) as (plant, client, celery),
        rig.plain_flask(broker_url=celery.broker_url, result_url=celery.result_url) as port,
    ):
        samples = interleave(rig.rounds, _sides(jobs, plant, client, celery, port))
    sides = {name: median(rates) for name, rates in samples.items()}
    return Measurement(
        sides["plant"] / sides["celery"],
        {
            "unit": "jobs/s",
            "sides": sides,
            "ratio_over_http": sides["plant_over_http"] / sides["celery_over_http"],
            "samples": samples,
            "jobs_per_round": jobs,
            "plant": "1 text worker, 1 upkeep, API idle while submitting by calls",
            "celery": "1 worker, prefork 2",
        },
    )


def _sides(
    jobs: int, plant: Plant, client: Client, celery: PlainCelery, flask_port: int
) -> dict[str, Callable[[], float]]:
    """Jobs a second of each system, submitted by calls and through HTTP."""
    noop = celery.app.tasks["plain.noop"]
    authorization = {"Authorization": f"Bearer {plant.api_key}"}
    job = Request("POST", "/v1/jobs", authorization, json.dumps({"endpoint": CHAT, "body": BODY}))
    task = Request("POST", "/tasks", body=json.dumps(BODY))

    def post(port: int, request: Request) -> None:
        send(port, [request], connections=CONNECTIONS, count=jobs)

    def plant_rate(submit_all: Callable[[], object]) -> float:
        return _rate(submit_all, client.ended, jobs)

    def celery_rate(submit_all: Callable[[], object]) -> float:
        return _rate(submit_all, celery.results, jobs)

    return {
        "plant": lambda: plant_rate(lambda: [client.submit() for _ in range(jobs)]),
        "celery": lambda: celery_rate(lambda: [noop.delay(BODY) for _ in range(jobs)]),
        "plant_over_http": lambda: plant_rate(lambda: post(plant.port, job)),
        "celery_over_http": lambda: celery_rate(lambda: post(flask_port, task)),
    }


def start_latency(rig: Rig) -> Measurement:
    """Milliseconds from submit to running, over ``delay()`` to the task's first line."""
    jobs = 10 if rig.quick else 60
    with _both(rig) as (_, client, celery):
        stamp = celery.app.tasks["plain.stamp"]
        samples = interleave(
            jobs, {"plant": lambda: _plant_start(client), "celery": lambda: _celery_start(stamp)}
        )
    sides = {name: median(times) for name, times in samples.items()}
    return Measurement(
        sides["plant"] / sides["celery"],
        {
            "unit": "ms p50",
            "sides": sides,
            "p95": {name: sorted(times)[int(len(times) * 0.95)] for name, times in samples.items()},
            "jobs_per_side": jobs,
        },
    )


def _plant_start(client: Client) -> float:
    """From before the submit to the claim, whose time the database took: it is this machine's."""
    time.sleep(IDLE_SECONDS)
    began = time.time()
    job_id = client.submit()
    time.sleep(UNDISTURBED_SECONDS)
    started: list[float] = []

    def ended() -> bool:
        started[:] = client.connection.execute(_STARTED, {"id": job_id}).scalars()
        return bool(started)

    wait_until(ended, DONE_SECONDS, pause_seconds=LOOK_SECONDS)
    return (started[0] - began) * 1000


def _celery_start(stamp: Any) -> float:
    time.sleep(IDLE_SECONDS)
    began = time.time()
    task = stamp.delay()
    time.sleep(UNDISTURBED_SECONDS)
    started: float = task.get(timeout=DONE_SECONDS, interval=LOOK_SECONDS)
    return (started - began) * 1000
