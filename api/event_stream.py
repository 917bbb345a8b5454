"""Events of a job as they happen, over one response that stays open (Server-Sent Events).

Each stream takes a place among those who may wait, as long-polls do, so streams can't have all
threads. It ends with the job, with the process, or after a while; clients then come back with the
id of the last event they saw, as browsers do by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from flask import Response
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api import rendering
from api.rendering import Object
from api.waiting import Waiter
from shared.db.events import EventRow, list_events
from shared.db.jobs import find_ended

CONTENT_TYPE = "text/event-stream"
DONE = "data: [DONE]\n\n"
HEARTBEAT = ": heartbeat\n\n"
RETRY = "retry: 2000\n\n"
AT_ONCE = 100
"""Events read by one query."""

Seen = tuple[bool, Sequence[EventRow]]
"""Whether the job has ended, and its next events."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a stream looks, and how long it lasts; in seconds."""

    poll: float = 1.0
    heartbeat: float = 15.0
    longest: float = 600.0


def stream_events(
    engine: Engine,
    waiter: Waiter,
    render: Callable[[EventRow], Object],
    *,
    tenant_id: str,
    job_id: str,
    after: int,
    pace: Pace,
) -> Response:
    """A response that tells every event after ``after``, oldest first. The caller has checked that
    the job is the tenant's. ``engine`` must autocommit. Raises TooManyRequests."""
    place = ExitStack()
    sleep = place.enter_context(waiter.place(tenant_id))

    def look(seen: int) -> Seen:
        with engine.connect() as connection:
            # In this order: an event that comes with the end is read after the end was seen.
            ended = bool(find_ended(connection, [job_id]))
            rows = list_events(connection, tenant_id, job_id=job_id, after=seen, limit=AT_ONCE)
        return ended, rows

    lines = _lines(look, partial(sleep, job_id), render, after=after, pace=pace)
    headers = {"X-Accel-Buffering": "no"}
    response = Response(lines, headers=headers, content_type=CONTENT_TYPE)
    response.call_on_close(place.close)
    return response


def _lines(
    look: Callable[[int], Seen],
    wait: Callable[[float], None],
    render: Callable[[EventRow], Object],
    *,
    after: int,
    pace: Pace,
) -> Iterator[str]:
    began = told_at = time.monotonic()
    woken = False
    yield RETRY
    while time.monotonic() - began < pace.longest:
        try:
            ended, rows = look(after)
        except SQLAlchemyError:  # the client comes back, and is told what is wrong
            return
        for row in rows:
            after, told_at = row.id, time.monotonic()
            shown = render(row)
            yield f"id: {shown['id']}\ndata: {rendering.compact(shown)}\n\n"
        if ended and not rows:
            yield DONE
            return
        if woken and not ended:
            return  # early, and not by the job's end: the process is to stop
        if rows:
            continue
        if time.monotonic() - told_at >= pace.heartbeat:
            told_at = time.monotonic()
            yield HEARTBEAT
        slept_at = time.monotonic()
        wait(pace.poll)
        woken = time.monotonic() - slept_at < pace.poll / 2
