"""When jobs can be submitted and will run: the two questions behind the ready line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import httpx2
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from shared.db.session import autocommit
from shared.db.tables import sessions

PROBE_SECONDS = 5.0
POOL = "text"


def api_is_ready(url: str) -> bool:
    """Whether the API answers and reaches its database."""
    try:
        answer = httpx2.get(f"{url}/readyz", timeout=PROBE_SECONDS, trust_env=False)
    except httpx2.HTTPError:
        return False
    return answer.status_code == httpx2.codes.OK


def database_time(engine: Engine) -> datetime:
    """The database's clock."""
    with autocommit(engine) as connection:
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now


def text_worker_is_alive(engine: Engine, pids: Sequence[int], *, since: datetime) -> bool:
    """Whether one of our own processes holds a session that serves text.

    The session that a killed predecessor left also looks alive until its lease ends, and in a
    container it may have had the same process id.
    """
    query = select(sessions.c.id).where(
        sessions.c.expires_at > func.clock_timestamp(),
        sessions.c.pools.any(POOL),
        sessions.c.pid.in_(pids),
        sessions.c.started_at >= since,
        sessions.c.draining.is_(False),
    )
    try:
        with autocommit(engine) as connection:
            return connection.execute(query.limit(1)).scalar() is not None
    except SQLAlchemyError:
        return False
