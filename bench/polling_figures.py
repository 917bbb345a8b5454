"""Callers who poll and callers who listen, at the same API."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bench.load import CONNECTIONS, Request, generator, rate, send
from bench.noop_figures import BODY, CHAT
from bench.report import Measurement, interleave, median
from bench.rig import Rig, api_workers
from tests.plant import Plant, wait_until

STREAMS = 500
THREADS = 720
PLACES = 680
"""Of which one tenant may have three quarters: a few more than there are streams."""
POLLING_CONNECTIONS = 4
OPEN_SECONDS = 300.0
OPENED_AT_ONCE = 50
FORGET_SECONDS = 35.0
"""Two heartbeats and some: by then the API has noticed who hung up, and has their places again."""
_JSON = {"Content-Type": "application/json"}


def _look(plant: Plant, job_id: str, **headers: str) -> Request:
    authorized = {"Authorization": f"Bearer {plant.api_key}"}
    return Request("GET", f"/v1/jobs/{job_id}", authorized | headers)


def _queued_jobs(plant: Plant, count: int) -> list[str]:
    """Nobody works: they stay queued."""
    body = json.dumps({"endpoint": CHAT, "body": BODY})
    with plant.http() as http:
        return [
            http.post("/v1/jobs", content=body, headers=_JSON).json()["id"] for _ in range(count)
        ]


def _start_api(plant: Plant, *options: str) -> None:
    plant.start_api(*options)
    plant.wait_ready()
    plant.api_key = plant.new_key(plant.new_tenant("first"))


def polls_304_vs_200(rig: Rig) -> Measurement:
    """Polls a second of a waiting job by those who bring its tag, over those who don't."""
    with rig.plant() as plant:
        # One process, or the load generator on the same cores would be what is measured.
        _start_api(plant, "--workers", "1")
        (job_id,) = _queued_jobs(plant, 1)
        with plant.http() as http:
            tag = http.get(f"/v1/jobs/{job_id}").headers["ETag"]
            known = http.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": tag})
        if known.status_code != 304:
            raise RuntimeError(f"an unchanged job is answered {known.status_code}")
        requests = {"304": _look(plant, job_id, **{"If-None-Match": tag}),
                    "200": _look(plant, job_id)}  # fmt: skip
        folder, seconds = rig.folder("load"), 2.0 if rig.quick else 5.0
        for request in requests.values():
            rate(plant.port, request, seconds=1.0, folder=folder)
        samples = interleave(
            rig.rounds,
            {
                name: partial(rate, plant.port, request, seconds=seconds, folder=folder)
                for name, request in requests.items()
            },
        )
    sides = {name: median(rates) for name, rates in samples.items()}
    return Measurement(
        sides["304"] / sides["200"],
        {
            "unit": "requests/s",
            "sides": sides,
            "samples": samples,
            "connections": CONNECTIONS,
            "load_generator": generator(),
        },
    )


def poll_latency_beside_sse(rig: Rig) -> Measurement:
    """p99 of plain polls while one API process holds 500 event streams, over the same without."""
    settings = {"API_THREADS": str(THREADS), "API_WAITING_REQUESTS": str(PLACES)}
    with rig.plant(settings=settings) as plant:
        _start_api(plant, "--workers", "1")
        jobs = _queued_jobs(plant, STREAMS)
        look, count = _look(plant, jobs[0]), 500 if rig.quick else 3_000

        def p99_ms() -> float:
            found = send(plant.port, [look], connections=POLLING_CONNECTIONS, count=count)
            return float(found["p99_ms"])

        p99_ms()
        (process,) = api_workers(plant)
        memory = {"idle": process.memory_info().rss / 1e6}
        samples: dict[str, list[float]] = {"idle": [], "beside": []}
        for number in range(rig.rounds):
            time.sleep(FORGET_SECONDS if number else 0.0)
            samples["idle"].append(p99_ms())
            with _streams(plant, jobs) as listeners:
                samples["beside"].append(p99_ms())
                memory["beside"] = process.memory_info().rss / 1e6
                listeners.check()
    sides = {name: median(times) for name, times in samples.items()}
    return Measurement(
        sides["beside"] / sides["idle"],
        {
            "unit": "ms p99",
            "sides": sides,
            "samples": samples,
            "streams": STREAMS,
            "connections": POLLING_CONNECTIONS,
            "api_processes": 1,
            "api_threads": THREADS,
            "api_memory_mb": memory,
        },
    )


class _Listeners:
    """Open streams, whose bytes are read and counted."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self.lost = 0
        self.listening = 0
        self._thread = threading.Thread(target=self._read, daemon=True)

    def add(self, request: str) -> None:
        link = socket.create_connection(("127.0.0.1", self._port), timeout=OPEN_SECONDS)
        link.sendall(request.encode())
        self._selector.register(link, selectors.EVENT_READ, bytearray())

    def start(self) -> None:
        self._thread.start()

    def wait_for(self, count: int) -> None:
        """Returns once so many have told how their job is."""
        wait_until(
            lambda: self.listening >= count or self.lost > 0,
            OPEN_SECONDS,
            lambda: f"{self.listening} of {count} streams are open",
        )

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def check(self) -> None:
        """Raises RuntimeError unless all of them are still open."""
        if self.lost or self.listening < STREAMS:
            raise RuntimeError(f"{self.listening} streams listen, {self.lost} were lost")

    def _read(self) -> None:
        while not self._closing.is_set():
            for key, _ in self._selector.select(0.1):
                data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                if not data:
                    self.lost += 1
                    self._selector.unregister(key.fileobj)
                    continue
                new = b"event: job" not in key.data
                key.data.extend(data)
                if new and b"event: job" in key.data:
                    self.listening += 1


@contextmanager
def _streams(plant: Plant, jobs: list[str]) -> Iterator[_Listeners]:
    """A stream of each job, once all of them have told how it is."""
    listeners = _Listeners(plant.port)
    listeners.start()
    try:
        for number, job_id in enumerate(jobs, 1):
            headers = {"Authorization": f"Bearer {plant.api_key}", "Accept": "text/event-stream"}
            listeners.add(Request("GET", f"/v1/jobs/{job_id}/events", headers).text())
            if number % OPENED_AT_ONCE == 0:
                listeners.wait_for(number)
        yield listeners
    finally:
        listeners.close()
