"""Real services for tests: each starts when the first test asks for it, and none otherwise.

``PRESSRUN_TEST_REQUIRE_SERVICES=1`` (or ``CI=true``) turns a missing service from a skip into a
failure. ``PRESSRUN_TEST_POSTGRES_BIN=/usr/lib/postgresql/15/bin`` runs on another Postgres.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from pressrun.embedded_postgres_server import EmbeddedPostgres
    from tests.services.rabbitmq import RabbitMQ
    from tests.services.swift import S3Bucket, SwiftServer
    from tests.services.tcp_proxy import TcpProxy

# Before anybody imports torch. Tests share the machine with each other, and on their small tensors
# threads that wait for each other take several times the time of one alone. Engines that are tested
# with more threads say so; the processes that tests start inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

TEMPLATE = "migrated_template"

_database_numbers = itertools.count(1)


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C, and so would every process that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def services_are_required() -> bool:
    return os.environ.get("CI") == "true" or (
        os.environ.get("PRESSRUN_TEST_REQUIRE_SERVICES") == "1"
    )


def _missing(reason: str) -> NoReturn:
    if services_are_required():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def service_dir() -> Iterator[Path]:
    """A short private folder, gone after the run; of a killed run, the next one removes it."""
    from tests.services.scratch import Scratch

    scratch = Scratch()
    yield scratch.path
    scratch.remove()


# --- Postgres -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server(service_dir: Path) -> Iterator[EmbeddedPostgres]:
    """One server for the run, on a socket and on TCP. Without fsync: a crash of it loses nothing,
    a crash of the machine would. Tests that stop or kill a server start their own."""
    from pressrun.embedded_postgres_server import EmbeddedPostgres
    from tests.services.ports import reserve_port

    bin_dir = os.environ.get("PRESSRUN_TEST_POSTGRES_BIN")
    server = EmbeddedPostgres(
        service_dir / "postgres",
        port=reserve_port(),
        tcp=True,
        fsync=False,
        bin_dir=Path(bin_dir) if bin_dir else None,
    )
    with server:
        yield server


@pytest.fixture(scope="session")
def database_template(postgres_server: EmbeddedPostgres) -> str:
    """The name of a database at the newest migration; nobody may stay connected to it."""
    from shared.db.migrate import upgrade

    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    upgrade(postgres_server.url_of(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def database_name(postgres_server: EmbeddedPostgres, database_template: str) -> Iterator[str]:
    """A database of this test's own, migrated; for those that need ``postgres_server`` too."""
    yield from _database(postgres_server, database_template)


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, database_name: str) -> str:
    """SQLAlchemy URL of a database of this test's own, migrated and without rows."""
    return postgres_server.url_of(database_name)


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """SQLAlchemy URL of a database of this test's own, without tables."""
    for name in _database(postgres_server, "template0"):
        yield postgres_server.url_of(name)


def _database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"test_{next(_database_numbers)}"
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield name
    with server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


# --- RabbitMQ -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rabbitmq(service_dir: Path) -> Iterator[RabbitMQ]:
    """One private node for the run. A test that stops it has to start it again."""
    from tests.services.rabbitmq import RabbitMQ

    if not RabbitMQ.available():
        _missing(RabbitMQ.HOW_TO_INSTALL)
    node = RabbitMQ(service_dir / "rabbitmq")
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def broker_vhost(rabbitmq: RabbitMQ) -> str:
    """A vhost of this test's own; for those that build a URL through a proxy."""
    return rabbitmq.new_vhost()


@pytest.fixture
def broker_url(rabbitmq: RabbitMQ, broker_vhost: str) -> str:
    """Broker URL of a vhost of this test's own: no queue of any other test is in it."""
    return rabbitmq.url_of(broker_vhost)


# --- S3 -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3_server(service_dir: Path) -> Iterator[SwiftServer]:
    """One S3 server for the run, with its ``endpoint_url``, ``access_key``, ``secret_key`` and
    ``region``. The first run ever installs it, which needs a package index."""
    from tests.services.swift import SwiftServer, SwiftUnavailable

    server = SwiftServer(service_dir / "swift")
    try:
        try:
            server.start()
        except SwiftUnavailable as error:
            _missing(str(error))
        yield server
    finally:
        server.kill()


@pytest.fixture
def s3_bucket(s3_server: SwiftServer) -> S3Bucket:
    """An empty bucket of this test's own, with all that a client needs to reach it."""
    return s3_server.new_bucket()


# --- clients ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def openai1_python() -> str:
    """A Python that has the last ``openai`` client of generation 1. The first run ever installs it,
    which needs a package index."""
    from tests.services.openai1 import Openai1Unavailable, ensure_openai1

    try:
        return str(ensure_openai1())
    except Openai1Unavailable as error:
        _missing(str(error))


# --- faults -------------------------------------------------------------------------------------


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[int], TcpProxy]]:
    """Makes proxies in front of ports; they are closed after the test."""
    from tests.services.tcp_proxy import TcpProxy

    with ExitStack() as proxies:
        yield lambda port: proxies.enter_context(TcpProxy(port))
