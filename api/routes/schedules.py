"""Schedules: productions that come again, of what is new in a feed or a folder."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from flask import Response, request

from api import parsing, rendering, schedule_rendering
from api.idempotency import once_for
from api.routes.replies import json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable
from api.schedule_requests import NOTHING, ScheduleRequest, find_schedule, make_schedule
from api.services import Services
from api.shapes import DeletedSchedule, Schedule, ScheduleList, ScheduleRunList
from shared import lifecycle
from shared.db.schedules import list_runs, list_schedules
from shared.errors import (
    Conflict,
    ModelNotFound,
    NotFound,
    SigningSecretMissing,
    UnsupportedParameter,
    UrlNotAllowed,
)

SCHEDULES = "/v1/schedules"
SCHEDULE = f"{SCHEDULES}/<schedule_id>"

routes = RouteTable("Schedules", "Productions that come again, of what is new in a source")


@routes.post(
    SCHEDULES,
    body=ScheduleRequest,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Schedule},
    errors=(
        ModelNotFound,
        NotFound,
        UnsupportedParameter,
        UrlNotAllowed,
        SigningSecretMissing,
        Conflict,
    ),
)
def create_schedule(services: Services, tenant_id: str) -> Response:
    """A production every so often, of the rows of a feed or a folder that were not there before.
    Without `at`, the first run is due at once."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(f"POST {SCHEDULES}", parsing.idempotency_key(request), document)
    schedule_id = once.first_use(services, tenant_id)
    if schedule_id is None:
        asked = parsing.validate(ScheduleRequest, document)
        schedule_id = make_schedule(services, tenant_id, asked, once)
    return _shown(services, tenant_id, schedule_id)


@routes.get(SCHEDULES, parameters=(LIMIT, AFTER), answers={200: ScheduleList})
def list_all_schedules(services: Services, tenant_id: str) -> Response:
    """Schedules, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = list_schedules(connection, tenant_id, after=after, limit=limit + 1)
    return json_reply(rendering.page([schedule_rendering.schedule(row) for row in rows], limit))


@routes.get(SCHEDULE, answers={200: Schedule})
def retrieve_schedule(services: Services, tenant_id: str, schedule_id: str) -> Response:
    """A schedule, and when it is due."""
    return _shown(services, tenant_id, schedule_id)


@routes.delete(SCHEDULE, answers={200: DeletedSchedule})
def delete_schedule(services: Services, tenant_id: str, schedule_id: str) -> Response:
    """Ends a schedule and forgets its runs; a production that it has begun goes on."""
    _do(services, tenant_id, schedule_id, lifecycle.delete_schedule)
    body = {"id": schedule_id, "object": "schedule.deleted", "deleted": True}
    return json_reply(body)


@routes.get(f"{SCHEDULE}/runs", parameters=(LIMIT, AFTER), answers={200: ScheduleRunList})
def list_schedule_runs(services: Services, tenant_id: str, schedule_id: str) -> Response:
    """The last runs of a schedule, newest first, with what each found and came to."""
    limit, after = parsing.page(request)
    find_schedule(services, tenant_id, schedule_id)
    with services.autocommit.connect() as connection:
        rows = list_runs(connection, tenant_id, schedule_id, after=after, limit=limit + 1)
    shown = [schedule_rendering.run(row, schedule_id) for row in rows]
    return json_reply(rendering.page(shown, limit))


@routes.post(f"{SCHEDULE}/pause", answers={200: Schedule})
def pause_schedule(services: Services, tenant_id: str, schedule_id: str) -> Response:
    """No further run is due until it is resumed; one that is open goes on. Files that its template
    names are not in use meanwhile."""
    _do(services, tenant_id, schedule_id, lifecycle.pause_schedule)
    return _shown(services, tenant_id, schedule_id)


@routes.post(f"{SCHEDULE}/resume", answers={200: Schedule}, errors=(Conflict,))
def resume_schedule(services: Services, tenant_id: str, schedule_id: str) -> Response:
    """Goes on with the next time that it is due, and counts failures and lost readers anew. Not
    where a file that its template names is gone."""
    _do(services, tenant_id, schedule_id, lifecycle.resume_schedule)
    return _shown(services, tenant_id, schedule_id)


@routes.post(f"{SCHEDULE}/run", answers={202: Schedule}, errors=(Conflict,))
def run_schedule(services: Services, tenant_id: str, schedule_id: str) -> Response:
    """One run as soon as no other is open, paused or not; asking twice before it has begun is one.
    When it is due stays as it is."""
    _do(services, tenant_id, schedule_id, lifecycle.ask_run)
    return _shown(services, tenant_id, schedule_id, HTTPStatus.ACCEPTED)


def _do(services: Services, tenant_id: str, schedule_id: str, change: Callable[..., bool]) -> None:
    """Raises NotFound."""
    parsing.one_id(schedule_id, "schedule")
    with services.transaction() as connection:
        if not change(connection, tenant_id=tenant_id, schedule_id=schedule_id):
            raise NotFound(NOTHING)


def _shown(
    services: Services, tenant_id: str, schedule_id: str, status: int = HTTPStatus.OK
) -> Response:
    row = find_schedule(services, tenant_id, schedule_id)
    return json_reply(schedule_rendering.schedule(row), status)
