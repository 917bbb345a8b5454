"""How jobs are getting on: look, wait, be told as it happens, ask about many, fetch the result."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from http import HTTPStatus

from flask import Response, request

from api import job_rendering, parsing, rendering
from api.direct import status_of
from api.errors import problem
from api.event_stream import SETTLING_SECONDS, Pace, stream_events, wants_stream
from api.limits import MAX_VERSION
from api.links import with_fresh_links
from api.rendering import Object
from api.requests import PollRequest
from api.routes.replies import json_reply, own_job_id
from api.routing import RouteTable, header, query
from api.services import Services
from api.shapes import EventList, Job, JobPoll, JobResult
from api.showing import find_job, find_standing, show, unchanged
from shared.db.events import EventRow, list_events
from shared.db.jobs import JobRow, get_job
from shared.db.polling import Polled, Seen, poll_jobs
from shared.errors import Conflict, InvalidRequest, NotFound, TooManyRequests
from shared.states import JobState

routes = RouteTable("Job progress", "How jobs are getting on, for those who poll, wait or listen")

MOST_EVENTS = 1_000
MOST_EVENT_ID = 2**59
PACE = Pace()
WAIT = query("wait", "Answer once the job has ended, or after so many seconds", type="number")


@routes.get(
    "/v1/jobs/<job_id>",
    parameters=(
        WAIT,
        query(
            "after_version",
            "With `wait`: answer as soon as the job's version is higher",
            type="integer",
            minimum=0,
        ),
        header("If-None-Match", "An ETag; 304 while the job is as it was then", type="string"),
    ),
    answers={200: Job, 304: "As it was"},
)
def retrieve_job(services: Services, tenant_id: str, job_id: str) -> Response:
    """A job with its result. Its place in line counts as a change of it, the estimates don't."""
    parsing.job_name(job_id)
    seconds = parsing.wait_seconds(request, services.settings.max_wait_seconds)
    after = parsing.integer(request, "after_version", default=-1, least=0, most=MAX_VERSION)
    if seconds:
        standing = find_standing(services, tenant_id, job_id)
        known = after < 0 or standing.version <= after
        if known and not rendering.has_ended(standing.state):
            seen = Seen(None if after < 0 else after)
            services.waiter.wait(tenant_id, standing.id, seconds, seen=seen)
    reply = unchanged(services, tenant_id, job_id, request)
    if reply is not None:
        return reply
    return show(services, tenant_id, *find_job(services, tenant_id, job_id))


@routes.get(
    "/v1/jobs/<job_id>/result",
    parameters=(WAIT,),
    answers={
        200: JobResult,
        202: Job,
        302: "Of a batch: the file of its results, or of its errors where nothing succeeded",
    },
    errors=(Conflict,),
)
def retrieve_job_result(services: Services, tenant_id: str, job_id: str) -> Response:
    """What a job has made, alone; 202 with the job while it is not done. A failed job is answered
    as the same call made directly would have been."""
    parsing.job_name(job_id)
    seconds = parsing.wait_seconds(request, services.settings.max_wait_seconds)
    row, result = find_job(services, tenant_id, job_id)
    if seconds and not rendering.has_ended(row.state):
        services.waiter.wait(tenant_id, row.id, seconds)
        row, result = find_job(services, tenant_id, row.id)
    if not rendering.has_ended(row.state):
        return show(services, tenant_id, row, None, HTTPStatus.ACCEPTED)
    file_id = row.output_file_id or row.error_file_id
    if file_id is not None:
        return Response(
            status=HTTPStatus.FOUND, headers={"Location": f"/v1/files/{file_id}/content"}
        )
    if result is not None:
        return json_reply(with_fresh_links(services, tenant_id, result) or "null")
    return _without_result(row)


def _without_result(row: JobRow) -> Response:
    if row.state == JobState.FAILED:
        code = row.error_code or "internal_error"
        status = status_of(code, row.error_param)
        # A fault of ours back then is none of this request's, and would be asked about again.
        status = status if status < HTTPStatus.INTERNAL_SERVER_ERROR else HTTPStatus.CONFLICT
        reply = problem(request, code, row.error_message or "", param=row.error_param,
                        status=status)  # fmt: skip
        reply.headers["x-should-retry"] = "false"
        return reply
    if row.state == JobState.SUCCEEDED:
        raise NotFound("this job has no result of its own")
    raise Conflict(f"this job is {row.state}: it has no result")


@routes.post(
    "/v1/jobs/poll",
    body=PollRequest,
    answers={200: JobPoll},
)
def poll_many_jobs(services: Services, tenant_id: str) -> Response:
    """Up to 500 jobs in one call, by our ids or the caller's own."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(PollRequest, document)
    names = list(dict.fromkeys(asked.ids))
    found = _poll(services, tenant_id, names, asked.after_versions)
    seconds = min(asked.wait, services.settings.max_wait_seconds)
    awaited = {
        item.id: Seen(asked.after_versions[name])
        for name, item in found.items()
        if item.row is None and not item.ended
    }
    if seconds and awaited and not any(item.row for item in found.values()):
        services.waiter.wait(tenant_id, awaited, seconds)
        found = _poll(services, tenant_id, names, asked.after_versions)
    body: Object = {
        "object": "job.poll",
        "data": [job_rendering.job(item.row) for item in found.values() if item.row],
        "unchanged": [name for name, item in found.items() if item.row is None],
        "missing": [name for name in names if name not in found],
    }
    return json_reply(rendering.compact(body))


def _poll(
    services: Services, tenant_id: str, names: list[str], after_versions: Mapping[str, int]
) -> dict[str, Polled]:
    possible = [name for name in names if parsing.is_id(name) or parsing.is_client_id(name)]
    with services.autocommit.connect() as connection:
        return poll_jobs(connection, tenant_id, possible, after_versions)


@routes.get(
    "/v1/jobs/<job_id>/events",
    parameters=(
        query(
            "limit",
            "Most events on a page",
            type="integer",
            minimum=1,
            maximum=MOST_EVENTS,
            default=100,
        ),
        query("after", "Start after the event with this id", type="string"),
        query("stream", "As Server-Sent Events, until the job ends", type="boolean"),
        header("Last-Event-ID", "Of a stream: the last event seen", type="string"),
    ),
    answers={200: EventList},
    streams=True,
    errors=(TooManyRequests,),
)
def list_job_events(services: Services, tenant_id: str, job_id: str) -> Response:
    """What happened to a job, oldest first; with `Accept: text/event-stream`, as it happens. A
    stream tells the job itself, too (`event: job`), at first and when it changes; it ends with
    `data: [DONE]`, and is taken up with `Last-Event-ID`."""
    job_id = own_job_id(services, tenant_id, job_id)
    after = parsing.integer(request, "after", default=0, least=0, most=MOST_EVENT_ID)
    if wants_stream(request):
        return _stream(services, tenant_id, job_id, _last_event() or after)
    limit = parsing.integer(request, "limit", default=100, least=1, most=MOST_EVENTS)
    rows = _events(services, tenant_id, job_id, after=after, limit=limit + 1)
    if not rows:
        find_standing(services, tenant_id, job_id)
    shown = [job_rendering.event(row) for row in rows]
    return json_reply(rendering.compact(rendering.page(shown, limit)))


def _events(
    services: Services, tenant_id: str, job_id: str, *, after: int, limit: int
) -> list[EventRow]:
    """A page that has no gap: where one might still be filled, that is waited for."""
    while True:
        with services.autocommit.connect() as connection:
            rows, complete = list_events(
                connection, tenant_id, job_id=job_id, after=after, limit=limit
            )
        if complete or len(rows) == limit:
            return rows
        time.sleep(SETTLING_SECONDS)


def _stream(services: Services, tenant_id: str, job_id: str, after: int) -> Response:
    find_standing(services, tenant_id, job_id)

    def state_of() -> Object | None:
        with services.autocommit.connect() as connection:
            found = get_job(connection, tenant_id, job_id)
        return found and job_rendering.job(found[0], services.estimator.outlook(found[0]))

    return stream_events(
        services.autocommit,
        services.waiter,
        job_rendering.event,
        tenant_id=tenant_id,
        job_id=job_id,
        after=after,
        pace=PACE,
        state_of=state_of,
    )


def _last_event() -> int | None:
    value = request.headers.get("Last-Event-ID") or None
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", value, re.ASCII) or int(value) > MOST_EVENT_ID:
        raise InvalidRequest("'Last-Event-ID' must be the id of an event", param="Last-Event-ID")
    return int(value)
