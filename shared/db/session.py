"""Connections. SQLAlchemy's pool over psycopg 3, tuned for short statements."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.db.security import SAYS_ITSELF, acting_now

if TYPE_CHECKING:
    from psycopg import Connection as DriverConnection
    from psycopg import Cursor
    from sqlalchemy import ExecutionContext

CONNECT_TIMEOUT_SECONDS = 5
STATEMENT_TIMEOUT_MILLISECONDS = 30_000
IDLE_IN_TRANSACTION_TIMEOUT_MILLISECONDS = 60_000
_IDLE = 0
"""libpq's word for a connection without a transaction."""
_LIMIT_EXCEEDED = "54"
"""Class of SQLSTATEs."""


def make_engine(
    url: str,
    *,
    process: str,
    pool_size: int = 4,
    max_overflow: int = 0,
    pool_timeout: float = 5.0,
    always_autocommit: bool = False,
    short_statements: bool = False,
    role: str | None = None,
) -> Engine:
    """An engine whose connections name their ``process`` and give up on hung statements.

    With ``always_autocommit`` a connection never has a transaction, nor the cost of switching one
    back and forth, which shows in statements as short as a job's lookup.

    With ``short_statements`` no plan reads a whole table where an index would do. Plans are kept,
    and one that was made while a table was all but empty would read it until somebody analyses it.

    With a ``role``, one that the user in ``url`` belongs to, connections act as that one, and say
    at the beginning of each transaction for whom it is (``shared.db.security``).
    """
    commits: dict[str, Any] = (
        {
            "isolation_level": "AUTOCOMMIT",
            "skip_autocommit_rollback": True,
            "pool_reset_on_return": None,
        }
        if always_autocommit
        else {}
    )
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=pool_timeout,
        pool_recycle=1_800,
        pool_use_lifo=True,
        **commits,
        json_serializer=_compact_json,
        hide_parameters=True,  # prompts and results, in the text of errors
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": f"pressrun-{process}",
            "options": _options(short_statements=short_statements, role=role),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )
    if role:
        _say_for_whom(engine)
    return engine


def _options(*, short_statements: bool, role: str | None) -> str:
    """Postgres' settings for each connection."""
    settings = {
        "statement_timeout": STATEMENT_TIMEOUT_MILLISECONDS,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MILLISECONDS,
        "timezone": "UTC",
    }
    if short_statements:
        settings["enable_seqscan"] = "off"
    if role:
        settings["role"] = role
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _say_for_whom(engine: Engine) -> None:
    def execute(
        cursor: Cursor[Any], statement: Any, parameters: Any, context: ExecutionContext
    ) -> bool:
        if SAYS_ITSELF in context.execution_options:
            return False
        return _begun(cursor.connection, lambda: cursor.execute(statement, parameters))

    def execute_many(cursor: Cursor[Any], statement: Any, parameters: Any, _: object) -> bool:
        return _begun(cursor.connection, lambda: cursor.executemany(statement, parameters))

    def execute_bare(cursor: Cursor[Any], statement: Any, _: object) -> bool:
        return _begun(cursor.connection, lambda: cursor.execute(statement))

    event.listen(engine, "do_execute", execute)
    event.listen(engine, "do_executemany", execute_many)
    event.listen(engine, "do_execute_no_params", execute_bare)


def _begun(connection: DriverConnection[Any], run: Callable[[], object]) -> bool:
    """Whether the statement was run here: if it begins a transaction that is for somebody. Both
    travel together; a pipeline on a connection without transactions is one of its own."""
    who = acting_now()
    if who is None or connection.info.transaction_status != _IDLE:
        return False
    with connection.pipeline():
        connection.execute(who.statement, (who.tenants,), prepare=True)
        run()
    return True


def _compact_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is its own transaction: one round trip apiece."""
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def is_outage(error: Exception) -> bool:
    """Whether ``error`` means the database can't be reached (as opposed to a wrong statement)."""
    if isinstance(error, PoolTimeout):
        return True
    if str(getattr(getattr(error, "orig", None), "sqlstate", "")).startswith(_LIMIT_EXCEEDED):
        return False  # no operator, though psycopg counts it so: it will be too large for ever
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated
        or type(error).__name__ in {"OperationalError", "InterfaceError"}
    )
