"""Monitors: texts that are judged as they come, and told of when too many are of a kind."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from api import monitor_rendering, parsing, rendering
from api.idempotency import once_for
from api.monitor_requests import (
    NOTHING,
    MonitorRequest,
    TextsRequest,
    find_monitor,
    make_monitor,
)
from api.routes.replies import json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable
from api.services import Services
from api.shapes import (
    DeletedMonitor,
    Monitor,
    MonitorList,
    MonitorWindow,
    MonitorWindowList,
    TextsAccepted,
)
from shared import lifecycle
from shared.db.monitors import get_window, list_monitors, list_windows
from shared.errors import (
    Conflict,
    ModelNotFound,
    NotFound,
    QuotaExceeded,
    SigningSecretMissing,
    UrlNotAllowed,
)

MONITORS = "/v1/monitors"
MONITOR = f"{MONITORS}/<monitor_id>"

routes = RouteTable("Monitors", "Texts that are judged as they come, and counted by window")


@routes.post(
    MONITORS,
    body=MonitorRequest,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Monitor},
    errors=(ModelNotFound, UrlNotAllowed, SigningSecretMissing, Conflict),
)
def create_monitor(services: Services, tenant_id: str) -> Response:
    """Watches texts: a classifier judges those of each window once it is over, and
    `monitor.alert` is told of a window in which too many are of one label."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(f"POST {MONITORS}", parsing.idempotency_key(request), document)
    monitor_id = once.first_use(services, tenant_id)
    if monitor_id is None:
        asked = parsing.validate(MonitorRequest, document)
        monitor_id = make_monitor(services, tenant_id, asked, once)
    return _shown(services, tenant_id, monitor_id)


@routes.get(MONITORS, parameters=(LIMIT, AFTER), answers={200: MonitorList})
def list_all_monitors(services: Services, tenant_id: str) -> Response:
    """Monitors, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = list_monitors(connection, tenant_id, after=after, limit=limit + 1)
    return json_reply(rendering.page([monitor_rendering.monitor(row) for row in rows], limit))


@routes.get(MONITOR, answers={200: Monitor})
def retrieve_monitor(services: Services, tenant_id: str, monitor_id: str) -> Response:
    """A monitor, and what went wrong last."""
    return _shown(services, tenant_id, monitor_id)


@routes.delete(MONITOR, answers={200: DeletedMonitor})
def delete_monitor(services: Services, tenant_id: str, monitor_id: str) -> Response:
    """Ends a monitor; its counts and the texts that wait are forgotten."""
    parsing.one_id(monitor_id, "monitor")
    with services.transaction() as connection:
        if not lifecycle.delete_monitor(connection, tenant_id=tenant_id, monitor_id=monitor_id):
            raise NotFound(NOTHING)
    return json_reply({"id": monitor_id, "object": "monitor.deleted", "deleted": True})


@routes.post(
    f"{MONITOR}/texts",
    body=TextsRequest,
    parameters=(IDEMPOTENCY_KEY,),
    answers={202: TextsAccepted},
    errors=(Conflict, QuotaExceeded),
)
def post_monitor_texts(services: Services, tenant_id: str, monitor_id: str) -> Response:
    """Adds texts to the window that is open now. They are judged when it is over."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(TextsRequest, document)
    parsing.one_id(monitor_id, "monitor")
    route = f"POST {MONITORS}/{monitor_id}/texts"
    once = once_for(route, parsing.idempotency_key(request), document)
    window_id = once.first_use(services, tenant_id)
    if window_id is None:
        with services.transaction() as connection:
            window_id = lifecycle.post_texts(
                connection, tenant_id=tenant_id, monitor_id=monitor_id, texts=asked.texts
            )
            if window_id is None:
                raise NotFound(NOTHING)
            once.made(connection, tenant_id, window_id)
    body = {
        "object": "monitor.texts",
        "monitor_id": monitor_id,
        "window_id": window_id,
        "accepted": len(asked.texts),
    }
    return json_reply(body, HTTPStatus.ACCEPTED)


@routes.get(f"{MONITOR}/windows", parameters=(LIMIT, AFTER), answers={200: MonitorWindowList})
def list_monitor_windows(services: Services, tenant_id: str, monitor_id: str) -> Response:
    """Counts by window, newest first; a window without a text is left out."""
    limit, after = parsing.page(request)
    find_monitor(services, tenant_id, monitor_id)
    with services.autocommit.connect() as connection:
        rows = list_windows(connection, tenant_id, monitor_id, after=after, limit=limit + 1)
    return json_reply(rendering.page([monitor_rendering.window(row) for row in rows], limit))


@routes.get("/v1/monitor_windows/<window_id>", answers={200: MonitorWindow})
def retrieve_monitor_window(services: Services, tenant_id: str, window_id: str) -> Response:
    """One window, such as a `monitor.alert` is about."""
    parsing.one_id(window_id, "window")
    with services.autocommit.connect() as connection:
        row = get_window(connection, tenant_id, window_id)
    if row is None:
        raise NotFound("there is no such window")
    return json_reply(monitor_rendering.window(row))


@routes.post(f"{MONITOR}/pause", answers={200: Monitor})
def pause_monitor(services: Services, tenant_id: str, monitor_id: str) -> Response:
    """Its source is not read, and no texts are taken or judged, until it is resumed."""
    return _set(services, tenant_id, monitor_id, active=False)


@routes.post(f"{MONITOR}/resume", answers={200: Monitor})
def resume_monitor(services: Services, tenant_id: str, monitor_id: str) -> Response:
    """Goes on with the texts that wait."""
    return _set(services, tenant_id, monitor_id, active=True)


def _set(services: Services, tenant_id: str, monitor_id: str, *, active: bool) -> Response:
    parsing.one_id(monitor_id, "monitor")
    with services.transaction() as connection:
        if not lifecycle.set_monitor_state(
            connection, tenant_id=tenant_id, monitor_id=monitor_id, active=active
        ):
            raise NotFound(NOTHING)
    return _shown(services, tenant_id, monitor_id)


def _shown(services: Services, tenant_id: str, monitor_id: str) -> Response:
    row = find_monitor(services, tenant_id, monitor_id)
    return json_reply(monitor_rendering.monitor(row))
