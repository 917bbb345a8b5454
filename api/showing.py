"""A job as an answer: its body, its tag, and when to ask again."""

from __future__ import annotations

from http import HTTPStatus

from flask import Request, Response
from werkzeug.http import parse_etags

from api import job_rendering, rendering
from api.links import life_stamp, with_fresh_links
from api.routes.replies import json_reply
from api.services import Services
from shared.db.job_rows import JobRow, Standing
from shared.db.jobs import get_job
from shared.db.polling import get_standing
from shared.errors import NotFound
from shared.states import JobState

NO_JOB = "there is no such job"


def find_job(services: Services, tenant_id: str, job_id: str) -> tuple[JobRow, str | None]:
    """The job and its result. Raises NotFound."""
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, job_id)
    if found is None:
        raise NotFound(NO_JOB)
    return found


def find_standing(services: Services, tenant_id: str, job_id: str) -> Standing:
    """How far the job is. Raises NotFound."""
    with services.autocommit.connect() as connection:
        found = get_standing(connection, tenant_id, job_id)
    if found is None:
        raise NotFound(NO_JOB)
    return found


def show(
    services: Services,
    tenant_id: str,
    row: JobRow,
    result: str | None,
    status: int = HTTPStatus.OK,
) -> Response:
    """The whole job."""
    outlook = services.estimator.outlook(row)
    fresh = with_fresh_links(services, tenant_id, result)
    body = job_rendering.job_with_result(row, fresh, outlook)
    return json_reply(body, status, _headers(services, row))


def unchanged(services: Services, tenant_id: str, job_id: str, request: Request) -> Response | None:
    """304 when the caller knows the job as it is; it costs a look at what changes, and no result.
    Raises NotFound."""
    known = request.headers.get("If-None-Match")
    headers = None if known is None else known_as_it_is(services, tenant_id, job_id, known)
    return None if headers is None else Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)


def known_as_it_is(
    services: Services, tenant_id: str, job_id: str, if_none_match: str
) -> dict[str, str] | None:
    """The headers of a 304 when a tag of that header is of the job as it is. Raises NotFound."""
    standing = find_standing(services, tenant_id, job_id)
    tag = job_rendering.etag(standing, _life(services, standing))
    known = parse_etags(if_none_match)
    # Of an empty tag werkzeug makes None.
    tags = (known_tag for known_tag in known.as_set(include_weak=True) if known_tag)
    place = job_rendering.place_in(tags, tag)
    if place is None and not known.star_tag:
        return None
    if standing.state == JobState.QUEUED:
        standing = standing._replace(queue_position=place or 0)
    return _headers(services, standing)


def _headers(services: Services, row: JobRow | Standing) -> dict[str, str]:
    headers = {"ETag": job_rendering.etag(row, _life(services, row))}
    if not rendering.has_ended(row.state):
        eta = services.estimator.outlook(row).ends_in
        headers["Retry-After"] = str(rendering.retry_after(row, eta))
    return headers


def _life(services: Services, row: JobRow | Standing) -> str:
    return life_stamp(services) if rendering.makes_artifacts(row.endpoint) else ""
