"""What a fine-tuning job has told so far: events, checkpoints, numbers."""

from __future__ import annotations

import re

from flask import Response, request

from api import fine_tuning_rendering, parsing, rendering
from api.event_stream import CONTENT_TYPE, Pace, stream_events
from api.routes.fine_tuning import JOBS, find_tuning
from api.routes.replies import json_reply
from api.routing import RouteTable, header, query
from api.services import Services
from api.shapes import (
    FineTuningCheckpointList,
    FineTuningEventList,
    FineTuningMetricsList,
)
from shared.db.checkpoints import list_checkpoints
from shared.db.tuning import list_metrics, newest_events
from shared.errors import InvalidRequest, TooManyRequests

MOST_STEPS = 1_000
PACE = Pace()

routes = RouteTable("Fine-tuning progress", "What trainings tell while they run, and afterwards")

_EVENT_ID = re.compile(r"ft-event-([0-9]{1,18})", re.ASCII)


def _limit(default: int, most: int = 100) -> dict[str, object]:
    return query(
        "limit", "Most items on a page", type="integer", minimum=1, maximum=most, default=default
    )


@routes.get(
    f"{JOBS}/<fine_tuning_job_id>/events",
    parameters=(
        _limit(20),
        query("after", "Start after the event with this id", type="string"),
        query("stream", "As Server-Sent Events, oldest first, until the job ends", type="boolean"),
        header("Last-Event-ID", "Of a stream: the last event seen", type="string"),
    ),
    answers={200: FineTuningEventList},
    streams=True,
    errors=(TooManyRequests,),
)
def list_fine_tuning_events(
    services: Services, tenant_id: str, fine_tuning_job_id: str
) -> Response:
    """What happened to a fine-tuning job, newest first; or, as a stream, as it happens. A stream
    that breaks off is taken up with `Last-Event-ID`; it ends with `data: [DONE]`."""
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    after = _event_number(request.args.get("after"), "after")
    with services.autocommit.connect() as connection:
        row, _ = find_tuning(connection, tenant_id, fine_tuning_job_id)
        if not _wants_stream():
            rows = newest_events(
                connection, tenant_id, job_id=row.id, before=after, limit=limit + 1
            )
            shown = [fine_tuning_rendering.event(event) for event in rows]
            return json_reply(rendering.page(shown, limit))
    seen = _event_number(request.headers.get("Last-Event-ID") or None, "Last-Event-ID")
    return stream_events(
        services.autocommit,
        services.waiter,
        fine_tuning_rendering.event,
        tenant_id=tenant_id,
        job_id=row.id,
        after=seen or after or 0,
        pace=PACE,
    )


def _wants_stream() -> bool:
    asked = parsing.choice(request, "stream", ("true", "false"))
    if asked is not None:
        return asked == "true"
    return request.accept_mimetypes.best == CONTENT_TYPE


def _event_number(value: str | None, param: str) -> int | None:
    if value is None:
        return None
    match = _EVENT_ID.fullmatch(value)
    if match is None:
        raise InvalidRequest(f"'{param}' must be the id of an event", param=param)
    return int(match[1])


@routes.get(
    f"{JOBS}/<fine_tuning_job_id>/checkpoints",
    parameters=(
        _limit(10),
        query("after", "Start after the checkpoint with this id", type="string"),
    ),
    answers={200: FineTuningCheckpointList},
)
def list_fine_tuning_checkpoints(
    services: Services, tenant_id: str, fine_tuning_job_id: str
) -> Response:
    """The checkpoints that are kept, newest first: the last two, and the best. Each can be asked
    by name."""
    limit = parsing.integer(request, "limit", default=10, least=1, most=100)
    after = parsing.cursor(request)
    with services.autocommit.connect() as connection:
        row, _ = find_tuning(connection, tenant_id, fine_tuning_job_id)
        rows = list_checkpoints(connection, tenant_id, job_id=row.id, after=after, limit=limit + 1)
    shown = [fine_tuning_rendering.checkpoint(checkpoint) for checkpoint in rows]
    return json_reply(rendering.page(shown, limit))


@routes.get(
    f"{JOBS}/<fine_tuning_job_id>/metrics",
    parameters=(
        _limit(MOST_STEPS, MOST_STEPS),
        query("after", "Start after this step", type="integer", minimum=0),
    ),
    answers={200: FineTuningMetricsList},
)
def list_fine_tuning_metrics(
    services: Services, tenant_id: str, fine_tuning_job_id: str
) -> Response:
    """All numbers of every step, in order."""
    limit = parsing.integer(request, "limit", default=MOST_STEPS, least=1, most=MOST_STEPS)
    after = parsing.integer(request, "after", default=-1, least=0, most=2**59)
    with services.autocommit.connect() as connection:
        row, _ = find_tuning(connection, tenant_id, fine_tuning_job_id)
        rows = list_metrics(connection, tenant_id, job_id=row.id, after=after, limit=limit + 1)
    return json_reply(rendering.page([fine_tuning_rendering.metrics(step) for step in rows], limit))
