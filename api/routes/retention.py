"""How long a tenant keeps what it has, and what is left of old jobs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from flask import Response, request

from api import parsing, rendering, retention_rendering
from api.retention_requests import RetentionRequest
from api.routes.replies import json_reply
from api.routing import AFTER, RouteTable, query
from api.services import Services
from api.shapes import ArchivedJobList, RetentionPolicy
from shared.db import archive, policies
from shared.errors import InvalidRequest, NotFound
from shared.retention import BadRetention, check_days, merged, parse_retention

routes = RouteTable("Retention", "How long things are kept, and what is left of old jobs")

POLICY = "/v1/admin/tenants/<tenant_id>/retention"
MOST_LINES = 10_000
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_PAGES = (
    query(
        "limit", "Most items on a page", type="integer", minimum=1, maximum=MOST_LINES, default=100
    ),
    AFTER,
    query("day", "Only jobs that ended on this day, in UTC", type="string", format="date"),
)


@routes.get("/v1/retention", answers={200: RetentionPolicy})
def retrieve_own_retention(services: Services, tenant_id: str) -> Response:
    """For how many days this tenant's things are kept."""
    return _policy(services, tenant_id)


@routes.get(POLICY, access="admin", answers={200: RetentionPolicy})
def retrieve_retention(services: Services, tenant_id: str) -> Response:
    """For how many days a tenant's things are kept."""
    return _policy(services, parsing.one_id(tenant_id, "tenant"))


@routes.put(POLICY, access="admin", body=RetentionRequest, answers={200: RetentionPolicy})
def put_retention(services: Services, tenant_id: str) -> Response:
    """Gives a tenant days of its own, in place of those that it had; what is left out is kept as
    the plant's settings say, `null` for ever."""
    parsing.one_id(tenant_id, "tenant")
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    own = parsing.validate(RetentionRequest, document).model_dump(exclude_unset=True)
    try:
        check_days(merged(_defaults(services), own))
    except BadRetention as error:
        raise InvalidRequest(str(error), param=error.kind) from None
    with services.autocommit.connect() as connection:
        if not policies.put_policy(connection, tenant_id, own):
            raise NotFound("there is no such tenant")
    return _policy(services, tenant_id)


@routes.delete(POLICY, access="admin", answers={200: RetentionPolicy})
def delete_retention(services: Services, tenant_id: str) -> Response:
    """Takes a tenant's own days away: the plant's settings hold for it again."""
    parsing.one_id(tenant_id, "tenant")
    with services.autocommit.connect() as connection:
        policies.delete_policy(connection, tenant_id)
    return _policy(services, tenant_id)


@routes.get("/v1/archived_jobs", parameters=_PAGES, answers={200: ArchivedJobList})
def list_own_archived_jobs(services: Services, tenant_id: str) -> Response:
    """A line for each job that was kept for as long as the policy says, in the order in which they
    ended."""
    return _archived(services, tenant_id)


@routes.get(
    "/v1/admin/tenants/<tenant_id>/archived_jobs",
    access="admin",
    parameters=_PAGES,
    answers={200: ArchivedJobList},
)
def list_archived_jobs(services: Services, tenant_id: str) -> Response:
    """A tenant's archived jobs, in the order in which they ended."""
    return _archived(services, parsing.one_id(tenant_id, "tenant"))


def _archived(services: Services, tenant_id: str) -> Response:
    limit = parsing.integer(request, "limit", default=100, least=1, most=MOST_LINES)
    start, stop = _day()
    with services.autocommit.connect() as connection:
        rows = archive.list_archived(
            connection,
            tenant_id,
            start=start,
            stop=stop,
            after=parsing.cursor(request),
            limit=limit + 1,
        )
    shown = [retention_rendering.archived_job(row) for row in rows]
    return json_reply(rendering.page(shown, limit))


def _day() -> tuple[float, float] | tuple[None, None]:
    day = request.args.get("day")
    if day is None:
        return None, None
    try:
        if not _DAY.fullmatch(day):
            raise ValueError
        start = datetime.fromisoformat(day).replace(tzinfo=UTC)
        return start.timestamp(), (start + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest("'day' must be a day such as 2026-11-22", param="day") from None


def _policy(services: Services, tenant_id: str) -> Response:
    with services.autocommit.connect() as connection:
        found = policies.get_policy(connection, tenant_id, _defaults(services))
    if found is None:
        raise NotFound("there is no such tenant")
    return json_reply(retention_rendering.policy(tenant_id, found))


def _defaults(services: Services) -> dict[str, int | None]:
    return parse_retention(services.settings.retention_days)
