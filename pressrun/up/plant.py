"""Everything on one machine: made ready step by step, watched, and taken down together."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import structlog
from sqlalchemy import Engine

from pressrun.api_client import ApiClient
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.migration import migrate_database
from pressrun.up.catalog import write_catalog
from pressrun.up.child_log import ChildLog
from pressrun.up.children import Child, ChildSpec, Guard
from pressrun.up.data_folder import DataFolder, write_private
from pressrun.up.database import Database
from pressrun.up.environment import plant_settings, server_environment
from pressrun.up.listener import listen, url_of
from pressrun.up.readiness import api_is_ready, database_time, text_worker_is_alive
from pressrun.up.starter_models import make_starter_models
from pressrun.up.tenant_key import ensure_tenant_key
from shared.db.session import make_engine
from shared.models_catalog import CatalogError, read_catalog
from shared.pools import TRAIN, UPKEEP
from shared.settings import Settings, given_settings

POLL_SECONDS = 0.1
READY_SECONDS = 180.0
DEATHS_BEFORE_READY = 4
"""A child that dies this often before anything worked will not work by being started again."""
STOP_MARGIN_SECONDS = 10.0
API_GRACE_SECONDS = 5
ENGINE_POOLS = "text,image,speech,video"
"""One worker process serves them all; each of its models has a child of its own."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = structlog.get_logger()


@dataclass(frozen=True)
class PlantOptions:
    """The command line of `up`."""

    data: Path
    host: str
    port: int
    with_fake: bool
    starter_models: bool
    workers: int


class StopRequested(BaseException):
    """SIGINT or SIGTERM while the plant was still being made ready."""


class Plant:
    """Use it once, from the main thread: ``run`` returns when a signal asked for the end."""

    def __init__(self, options: PlantOptions) -> None:
        self._options = options
        self._folder = DataFolder(options.data)
        self._children: list[Child] = []
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._may_raise = False
        self._deadline = 0.0

    def run(self) -> None:
        """Raises CommandError when the plant can't be made ready; nothing is left running."""
        with self._signals(), ExitStack() as stack:
            try:
                self._watch(self._make_ready(stack))
            except StopRequested:
                log.info("stopped_before_ready")

    # --- making ready -----------------------------------------------------------------------

    def _make_ready(self, stack: ExitStack) -> Database:
        options, folder = self._options, self._folder
        given = given_settings()
        folder.make()
        lock = stack.enter_context(folder.locked())
        listener = stack.enter_context(listen(options.host, options.port))
        keeper = Guard(lock)
        stack.callback(keeper.close)
        settings = plant_settings(folder, given, workers=options.workers)
        database = Database(folder.postgres, given.get("database_url"))
        stack.callback(database.stop)
        with self._stoppable():
            database.start()
        settings = settings.model_copy(update={"database_url": database.url})
        environment = server_environment(settings)
        self._load_catalog(settings, keeper, environment)
        engine = make_engine(settings.database_url, process="up", pool_size=1, max_overflow=2)
        stack.callback(engine.dispose)
        with self._stoppable():
            began = database_time(engine)
        stack.callback(self._stop_children, settings.drain_seconds + STOP_MARGIN_SECONDS)
        self._start_children(settings, environment, listener, keeper)
        url = url_of(listener)
        self._await_api(url, settings, engine, database)
        while not text_worker_is_alive(engine, self._pids(), since=began):
            self._keep_going(database)
        write_private(folder.url, url)
        stack.callback(folder.url.unlink, missing_ok=True)
        print(f"ready {url}", flush=True)
        return database

    def _load_catalog(self, settings: Settings, keeper: Guard, environment: dict[str, str]) -> None:
        options, folder = self._options, self._folder
        path = settings.models_file or folder.models_file
        if path == folder.models_file:
            if options.starter_models:
                with self._stoppable(at_once=True):
                    make_starter_models(folder.models, folder.logs, keeper, environment)
            written = write_catalog(path, starters=options.starter_models, fake=options.with_fake)
            if not written:
                log.info("catalog_kept", path=str(path), reason="edited by the operator")
        try:
            entries = read_catalog(path)
        except CatalogError as error:
            raise CommandError(str(error), ExitCode.USAGE) from None
        if options.with_fake and not any(entry.engine == "fake" for entry in entries):
            log.warning("no_fake_model", reason=f"{path} does not list one")
        with self._stoppable():
            migrate_database(settings.database_url, entries)
        log.info("database_ready", models=[entry.id for entry in entries])

    def _start_children(
        self,
        settings: Settings,
        environment: dict[str, str],
        listener: socket.socket,
        keeper: Guard,
    ) -> None:
        api = [sys.executable, "-m", "gunicorn", "-c", "api/gunicorn_conf.py"]
        api += ["--bind", f"fd://{listener.fileno()}"]
        api += ["--graceful-timeout", str(API_GRACE_SECONDS), "api.wsgi:app"]
        specs = [ChildSpec("api", api, environment, (listener.fileno(),))]
        names = ["worker"] + [f"worker-{n}" for n in range(2, self._options.workers + 1)]
        for name, pools in (
            *((name, ENGINE_POOLS) for name in names),
            # Of its own: a training never disturbs what serves.
            ("trainer", TRAIN),
            ("upkeep", UPKEEP),
        ):
            argv = [sys.executable, "-m", "worker", "--pools", pools]
            specs.append(ChildSpec(name, argv, environment))
        self._deadline = time.monotonic() + READY_SECONDS
        for spec in specs:
            child_log = ChildLog(self._folder.logs / f"{spec.name}.log", _warn)
            child = Child(spec, child_log, keeper)
            self._children.append(child)
            child.start()

    def _await_api(self, url: str, settings: Settings, engine: Engine, database: Database) -> None:
        while not api_is_ready(url):
            self._keep_going(database)
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else ""
        with ApiClient(url, admin_key) as admin:
            ensure_tenant_key(self._folder.api_key, engine, admin)

    def _keep_going(self, database: Database) -> None:
        """Supervises for a moment. Raises CommandError when there is no hope."""
        database.supervise()
        late = time.monotonic() > self._deadline
        for child in self._children:
            child.supervise()
            if child.deaths >= DEATHS_BEFORE_READY or (late and child.deaths):
                raise CommandError(
                    f"{child.spec.name} does not come up; the end of {child.log.path}:\n"
                    f"{child.log.tail()}"
                )
        if late:
            raise CommandError(f"not ready in {READY_SECONDS:.0f} s; see {self._folder.logs}")
        with self._stoppable():
            time.sleep(POLL_SECONDS)

    def _pids(self) -> list[int]:
        return [child.pid for child in self._children if child.pid is not None]

    # --- being up ---------------------------------------------------------------------------

    def _watch(self, database: Database) -> None:
        while not self._stop.wait(POLL_SECONDS):
            database.supervise()
            for child in self._children:
                child.supervise()

    def _stop_children(self, seconds: float) -> None:
        """Asks all at once, waits, and kills what is left; at once on a second signal."""
        log.info("stopping", at_most_seconds=seconds)
        for child in self._children:
            child.retire()
        deadline = time.monotonic() + seconds
        while not all(child.ended() for child in self._children):
            if self._hurry.is_set() or time.monotonic() > deadline:
                left = [child.spec.name for child in self._children if not child.ended()]
                log.warning("killed", children=left)
                break
            time.sleep(POLL_SECONDS)
        for child in self._children:
            child.kill()

    # --- signals ----------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self._on_signal)
            for number in STOP_SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN  # nohup
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _stoppable(self, *, at_once: bool = False) -> Iterator[None]:
        """Raises StopRequested behind the block when a signal has come, before it when one had come
        already; ``at_once``: in its middle too, for blocks that take long and bear it. Whatever
        else is under way when a signal comes is never torn apart."""
        if self._stop.is_set():
            raise StopRequested
        self._may_raise = at_once
        try:
            yield
        finally:
            self._may_raise = False
        if self._stop.is_set():
            raise StopRequested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()
        if self._may_raise:
            self._may_raise = False
            raise StopRequested


def _warn(line: str) -> None:
    sys.stderr.write(f"{line}\n")
