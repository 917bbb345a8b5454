"""A whole plant for one test: the real API and workers as processes, over real services.

Processes are killed with the test process (see ``tests.services.guard``); a fault test kills them
earlier, by the pid of the real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
from sqlalchemy import create_engine, text

from shared.db.models import sync_catalog
from shared.models_catalog import ModelEntry
from tests.services.guard import GuardedProcess
from tests.services.ports import reserve_port

ROOT = Path(__file__).resolve().parents[1]
EVERY_POOL = "text,image,speech,video,train"
ADMIN_KEY = "admin-key-of-this-test"
SIGNING_KEY = "signing-key-of-this-test"

FAST = ModelEntry(id="fake", engine="fake")
SLOW = ModelEntry(id="fake-slow", engine="fake", settings={"seconds_per_row": 2.0, "capacity": 64})
"""A slice takes two seconds, and a worker holds one or two at a time."""


class PlantError(Exception):
    """A process of the plant did not do what the test waits for."""


@dataclass
class Process:
    """One process of the plant, and how to start it again."""

    name: str
    argv: list[str]
    guard: GuardedProcess
    log_path: Path

    @property
    def pid(self) -> int:
        """Of the process itself, not of its guard."""
        [child] = psutil.Process(self.guard._guard.pid).children()
        return child.pid

    def kill(self) -> None:
        """``kill -9``, and nothing else: what it started has to end by itself."""
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: it drains and leaves."""
        os.kill(self.pid, signal.SIGTERM)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")


@dataclass
class Plant:
    """Processes that share a database, a broker and a store."""

    folder: Path
    database_url: str
    broker_url: str = ""
    models: Iterable[ModelEntry] = (FAST, SLOW)
    settings: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    port: int = field(default_factory=reserve_port)
    api_key: str = ""

    def __enter__(self) -> Plant:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.engine = create_engine(self.database_url, pool_pre_ping=True)
        with self.engine.begin() as connection:
            sync_catalog(connection, list(self.models))
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.guard.kill()
        self.engine.dispose()

    # --- processes --------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        settings = {
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.broker_url,
            "STORAGE_DIR": str(self.folder / "artifacts"),
            "SCRATCH_DIR": str(self.folder / "scratch"),
            "ADMIN_KEY": ADMIN_KEY,
            "SIGNING_KEY": SIGNING_KEY,
            "HEARTBEAT_SECONDS": "0.5",
            "SESSION_TTL_SECONDS": "4",
            "UPKEEP_SECONDS": "0.2",
            "HUB_OFFLINE": "true",
        } | self.settings
        named = {f"PRESSRUN_{name}": value for name, value in settings.items() if value}
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return named | kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def start_api(self, *options: str) -> Process:
        """``options`` are gunicorn's."""
        return self._start(
            "api",
            "-m", "gunicorn", "-c", "python:api.gunicorn_conf", *options,
            "-b", f"127.0.0.1:{self.port}", "api.wsgi:app",
        )  # fmt: skip

    def start_worker(self, name: str, pools: str) -> Process:
        return self._start(name, "-m", "worker", "--pools", pools)

    def start(self, *, workers: int = 1, pools: str = EVERY_POOL) -> Plant:
        """The API, upkeep and ``workers`` workers; returns when jobs can be submitted."""
        self.start_api()
        self.start_worker("upkeep", "upkeep")
        for number in range(workers):
            self.start_worker(f"worker-{number}", pools)
        self.wait_ready()
        self.api_key = self.new_key(self.new_tenant("first"))
        return self

    def restart(self, name: str) -> Process:
        """Starts a process again that was killed."""
        process = self.processes[name]
        process.guard.kill()
        return self._start(name, *process.argv)

    def engine_children(self, name: str) -> list[psutil.Process]:
        """The engine children of a worker."""
        return psutil.Process(self.processes[name].pid).children()

    def _start(self, name: str, *argv: str) -> Process:
        log_path = self.folder / f"{name}.log"
        guard = GuardedProcess(
            [sys.executable, *argv],
            log_path=log_path,
            environment=self.environment(),
            folder=ROOT,
        )
        self.processes[name] = Process(name, list(argv), guard, log_path)
        return self.processes[name]

    # --- talking to it ----------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url_for(self, link: str) -> str:
        """``link`` as an absolute address: the local store's are paths on the API's own."""
        return link if "://" in link else self.url + link

    def wait_ready(self, timeout_seconds: float = 60.0) -> None:
        def ready() -> bool:
            with contextlib.suppress(httpx2.HTTPError):
                return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
            return False

        wait_until(ready, timeout_seconds, self.processes["api"].log)

    def new_tenant(self, name: str) -> str:
        answer = self.admin("POST", "/v1/admin/tenants", {"name": name})
        return str(answer["id"])

    def new_key(self, tenant_id: str) -> str:
        return str(self.admin("POST", f"/v1/admin/tenants/{tenant_id}/keys", {})["key"])

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = httpx2.request(
            method,
            self.url + path,
            json=body,
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            timeout=30,
        )
        answer.raise_for_status()
        return dict(answer.json())

    def client(self, **options: Any) -> openai.OpenAI:
        """An unmodified client of the first tenant."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.api_key, **options)

    def http(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.api_key}"}, timeout=60
        )

    def scalar(self, sql: str, **values: Any) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(text(sql), values).scalar()

    # --- batches ----------------------------------------------------------------------------

    def submit_batch(
        self, rows: list[dict[str, Any]], *, endpoint: str = "/v1/chat/completions"
    ) -> str:
        client = self.client()
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        file = client.files.create(file=("input.jsonl", data), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint=endpoint,
            completion_window="24h",  # type: ignore[arg-type]
        )
        return batch.id

    def wait_batch(self, batch_id: str, timeout_seconds: float = 120.0) -> openai.types.Batch:
        """Polls until the batch has ended; survives an API or a database that is away."""
        client = self.client(max_retries=0, timeout=10)
        found: list[openai.types.Batch] = []

        def ended() -> bool:
            with contextlib.suppress(openai.APIConnectionError, openai.InternalServerError):
                batch = client.batches.retrieve(batch_id)
                found[:] = [batch]
                return batch.status in {"completed", "failed", "expired", "cancelled"}
            return False

        wait_until(ended, timeout_seconds, lambda: f"batch {found} in {self.folder}")
        return found[0]

    def wait_progress(self, batch_id: str, rows: int, timeout_seconds: float = 60.0) -> None:
        """Returns once at least ``rows`` rows of the batch are done."""
        client = self.client()

        def far_enough() -> bool:
            counts = client.batches.retrieve(batch_id).request_counts
            return counts is not None and counts.completed + counts.failed >= rows

        wait_until(far_enough, timeout_seconds, lambda: str(client.batches.retrieve(batch_id)))

    def results(self, batch: openai.types.Batch) -> dict[str, dict[str, Any]]:
        """Every line of the output and error files by custom_id; fails on a repeated one."""
        found: dict[str, dict[str, Any]] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            for line in self.client().files.content(file_id).text.splitlines():
                row = json.loads(line)
                assert row["custom_id"] not in found, f"{row['custom_id']} appears twice"
                found[row["custom_id"]] = row
        return found


def chat_row(number: int, content: str = "hello", *, model: str = "fake") -> dict[str, Any]:
    """One line of a batch input file."""
    return {
        "custom_id": f"row-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": model, "messages": [{"role": "user", "content": content}]},
    }


def wait_until(
    condition: Callable[[], bool],
    timeout_seconds: float,
    explain: Callable[[], str] = lambda: "",
    pause_seconds: float = 0.1,
) -> None:
    """Raises PlantError, with the explanation, when the condition stays false."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise PlantError(f"not within {timeout_seconds} s: {explain()[-4000:]}")
        time.sleep(pause_seconds)


@contextlib.contextmanager
def plant(folder: Path, database_url: str, broker_url: str = "", **options: Any) -> Iterator[Plant]:
    """A plant that is gone after the block; nothing runs until ``start``."""
    with Plant(folder, database_url, broker_url, **options) as made:
        yield made
