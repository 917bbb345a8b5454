"""Usage: what was consumed by day, model and endpoint, and what may be."""

from __future__ import annotations

from flask import Response, request

from api import parsing, rendering, usage_rendering
from api.routes.replies import json_reply
from api.routing import AFTER, LIMIT, RouteTable, Schema, query
from api.services import Services
from api.shapes import LimitNotice, LimitNoticeList, LimitsInUse, UsagePage
from api.usage_requests import DAYS, LAST_SECOND, MOST_DAYS, read_usage_request
from shared.db.limit_notices import get_notice, list_notices
from shared.db.stored_bytes import stored_bytes
from shared.db.tenants import get_tenant
from shared.db.usage import GROUPS, usage_days, usage_total
from shared.errors import NotFound
from shared.lifecycle.quotas import standing_of

routes = RouteTable("Usage", "What was consumed, what it cost, and what may be")

MINE = ("endpoint", "model")
_ID = query("tenant_id", "Only of this tenant", type="string")


def _parameters(groups: tuple[str, ...]) -> tuple[Schema, ...]:
    seconds = {"type": "integer", "minimum": 0, "maximum": LAST_SECOND}
    return (
        query("start_time", "Unix seconds; from the beginning of that day, in UTC", **seconds),
        query("end_time", "Unix seconds; to the end of the day before that moment", **seconds),
        query(
            "group_by",
            "What to tell apart, beside days; several with commas, or given several times",
            type="array",
            items={"type": "string", "enum": [*groups]},
        ),
        query(
            "limit",
            "Most days on a page",
            type="integer",
            minimum=1,
            maximum=MOST_DAYS,
            default=DAYS,
        ),
        query("page", "The `next_page` of the page before", type="string"),
    )


@routes.get("/v1/usage", parameters=_parameters(MINE), answers={200: UsagePage})
def show_usage(services: Services, tenant_id: str) -> Response:
    """What was consumed on each day of UTC, this month's and the last ones if nothing else is asked
    for. It is complete: a row counts from the moment on in which its result is there."""
    return _usage(services, tenant_id, MINE)


@routes.get("/v1/limits", answers={200: LimitsInUse})
def show_limits(services: Services, tenant_id: str) -> Response:
    """The caller's limits, and what counts for them."""
    with services.autocommit.connect() as connection:
        row = get_tenant(connection, tenant_id)
        held = standing_of(connection, tenant_id)
        stored = stored_bytes(connection, tenant_id)
    if row is None:
        raise NotFound("there is no such tenant")
    return json_reply(usage_rendering.limits_in_use(row.limits, held, stored))


@routes.get("/v1/limit_notices", parameters=(LIMIT, AFTER), answers={200: LimitNoticeList})
def list_limit_notices(services: Services, tenant_id: str) -> Response:
    """Which limits of a day or a month were used up to 80 or to 100 percent, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = list_notices(connection, tenant_id, after=after, limit=limit + 1)
    return json_reply(rendering.page([usage_rendering.notice(row) for row in rows], limit))


@routes.get("/v1/limit_notices/<notice_id>", answers={200: LimitNotice})
def retrieve_limit_notice(services: Services, tenant_id: str, notice_id: str) -> Response:
    """One notice, such as a `budget.threshold_reached` is about."""
    parsing.one_id(notice_id, "notice")
    with services.autocommit.connect() as connection:
        row = get_notice(connection, tenant_id, notice_id)
    if row is None:
        raise NotFound("there is no such notice")
    return json_reply(usage_rendering.notice(row))


@routes.get(
    "/v1/admin/usage",
    access="admin",
    parameters=(*_parameters(GROUPS), _ID),
    answers={200: UsagePage},
    errors=(NotFound,),
)
def show_all_usage(services: Services) -> Response:
    """What all tenants have consumed, or one of them."""
    tenant_id = request.args.get("tenant_id")
    if tenant_id is not None:
        parsing.one_id(tenant_id, "tenant")
    return _usage(services, tenant_id, GROUPS)


def _usage(services: Services, tenant_id: str | None, groups: tuple[str, ...]) -> Response:
    asked = read_usage_request(request, groups=groups)
    with services.autocommit.connect() as connection:
        rows = usage_days(
            connection, tenant_id, first=asked.page, end=asked.page_end, groups=asked.groups
        )
        total = usage_total(connection, tenant_id, first=asked.first, end=asked.end)
    return json_reply(usage_rendering.page(asked, rows, total))
