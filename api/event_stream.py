"""Events of a job as they happen, over one response that stays open (Server-Sent Events).

Each stream has a thread, which sleeps, and a place among those who may wait: ``Waiter`` asks for
all of them in one query. It ends with the job, with the process, or after a while; clients then
come back with the id of the last event they saw, as browsers do by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from flask import Request, Response
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api import parsing, rendering
from api.rendering import Object
from api.waiting import Waiter
from shared.db.events import EventRow, list_events
from shared.db.polling import Seen, get_standing

CONTENT_TYPE = "text/event-stream"
DONE = "data: [DONE]\n\n"
HEARTBEAT = ": heartbeat\n\n"
RETRY = "retry: 2000\n\n"
AT_ONCE = 100
"""Events read by one query."""
SETTLING_SECONDS = 0.05
"""Before looking again at an event that might not be the next one yet."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a stream that has nothing to tell says so, and how long it lasts; in seconds."""

    heartbeat: float = 15.0
    longest: float = 600.0


class Look(NamedTuple):
    """What a stream finds when it looks at its job."""

    ended: bool
    """Or gone."""
    rows: Sequence[EventRow]
    """The next events."""
    complete: bool
    """Whether these are all that there are for now."""
    version: int
    state: Object | None = None
    """How the job is, for streams that tell it."""


def wants_stream(request: Request) -> bool:
    """Whether the caller of a route that has events asks for them as a stream."""
    asked = parsing.choice(request, "stream", ("true", "false"))
    if asked is not None:
        return asked == "true"
    return request.accept_mimetypes.best == CONTENT_TYPE


def stream_events(
    engine: Engine,
    waiter: Waiter,
    render: Callable[[EventRow], Object],
    *,
    tenant_id: str,
    job_id: str,
    after: int,
    pace: Pace,
    state_of: Callable[[], Object | None] | None = None,
) -> Response:
    """A response that tells every event after ``after``, oldest first. The caller has checked that
    the job ``job_id``, an id of ours, is the tenant's. ``engine`` must autocommit. Raises
    TooManyRequests.

    ``state_of`` reads the job as it is: told at first and whenever it has changed, without an id,
    since it is no event that could be asked for again.
    """
    place = ExitStack()
    sleep = place.enter_context(waiter.place(tenant_id))

    def look(after: int, version: int) -> Look:
        with engine.connect() as connection:
            # In this order: an event that comes with the end is read after the end was seen.
            standing = get_standing(connection, tenant_id, job_id)
            rows, complete = list_events(
                connection, tenant_id, job_id=job_id, after=after, limit=AT_ONCE
            )
        if standing is None:
            return Look(True, rows, complete, version)
        told = state_of() if state_of and standing.version > version else None
        ended = rendering.has_ended(standing.state)
        return Look(ended, rows, complete and len(rows) < AT_ONCE, standing.version, told)

    def wait(after: int, version: int, seconds: float) -> bool:
        seen = Seen(version if state_of else None, after)
        return sleep(job_id, seconds, seen=seen) or not waiter.stopping

    response = Response(
        _lines(look, wait, render, after=after, pace=pace),
        headers={"X-Accel-Buffering": "no"},
        content_type=CONTENT_TYPE,
    )
    response.call_on_close(place.close)
    return response


def _lines(
    look: Callable[[int, int], Look],
    wait: Callable[[int, int, float], bool],
    render: Callable[[EventRow], Object],
    *,
    after: int,
    pace: Pace,
) -> Iterator[str]:
    """``wait`` returns when there is something beyond an event and a version, or after so many
    seconds; false when the process is to stop."""
    told_at = time.monotonic()
    ends_at = told_at + pace.longest
    version = 0
    yield RETRY
    while time.monotonic() < ends_at:
        try:
            found = look(after, version)
        except PoolTimeout:  # a stream can wait for others to be served
            continue
        except SQLAlchemyError:  # the client comes back, and is told what is wrong
            return
        version = found.version
        for message in _messages(found, render):
            told_at = time.monotonic()
            yield message
        after = found.rows[-1].id if found.rows else after
        if not found.complete:
            time.sleep(0.0 if found.rows else SETTLING_SECONDS)
            continue
        if found.ended:
            yield DONE
            return
        if time.monotonic() - told_at >= pace.heartbeat:
            told_at = time.monotonic()
            yield HEARTBEAT
        quiet = min(told_at + pace.heartbeat, ends_at) - time.monotonic()
        if not wait(after, version, max(0.0, quiet)):
            return


def _messages(found: Look, render: Callable[[EventRow], Object]) -> Iterator[str]:
    if found.state is not None:
        yield f"event: job\ndata: {rendering.compact(found.state)}\n\n"
    for row in found.rows:
        shown = render(row)
        yield f"id: {shown['id']}\ndata: {rendering.compact(shown)}\n\n"
