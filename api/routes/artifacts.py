"""Artifacts: the pictures, sounds, videos and bundles that jobs make."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Response, request

from api import media_rendering, parsing, rendering
from api.links import download_url
from api.routes.replies import json_reply, own_job_id
from api.routing import AFTER, LIMIT, RouteTable, query
from api.services import Services
from api.shapes import Artifact, ArtifactList, StepList
from shared.db.artifacts import ArtifactRow, get_artifact, list_artifacts
from shared.db.jobs import get_job
from shared.db.steps import list_steps
from shared.errors import NotFound, StorageUnavailable

routes = RouteTable("Artifacts", "What jobs make, as files, and the steps that make it")

MOST_LINES = 2**31 - 1
LINE = query("line", "Only of this line of a batch's input", type="integer", minimum=0)


@routes.get("/v1/artifacts/<artifact_id>", answers={200: Artifact})
def retrieve_artifact(services: Services, tenant_id: str, artifact_id: str) -> Response:
    """An artifact: what it is, how it was made, and a URL to it."""
    row = find(services, tenant_id, artifact_id)
    return json_reply(media_rendering.artifact(row, download_url(services, row)))


@routes.get(
    "/v1/artifacts/<artifact_id>/content",
    answers={302: "The content is at `Location`, for a while; ranges of it can be asked for there"},
    errors=(StorageUnavailable,),
)
def retrieve_artifact_content(services: Services, tenant_id: str, artifact_id: str) -> Response:
    """Where to download the artifact."""
    return redirect_to(services, find(services, tenant_id, artifact_id))


@routes.get(
    "/v1/jobs/<job_id>/artifacts",
    parameters=(
        LIMIT,
        AFTER,
        query("role", "Only of this role: `image`, `audio`, `video`, …", type="string"),
        LINE,
    ),
    answers={200: ArtifactList},
)
def list_job_artifacts(services: Services, tenant_id: str, job_id: str) -> Response:
    """What a job has made so far, by id."""
    job_id = own_job_id(services, tenant_id, job_id)
    limit, after = parsing.page(request)
    role = request.args.get("role")
    if role is not None:
        parsing.plain_text(role, "role")
    with services.autocommit.connect() as connection:
        rows = list_artifacts(
            connection,
            tenant_id,
            job_id=job_id,
            after=after,
            limit=limit + 1,
            role=role,
            line=_line(),
        )
        if not rows and get_job(connection, tenant_id, job_id) is None:
            raise NotFound("there is no such job")
    shown = [media_rendering.artifact(row, download_url(services, row)) for row in rows]
    return json_reply(rendering.page(shown, limit))


@routes.get(
    "/v1/jobs/<job_id>/steps",
    parameters=(LIMIT, query("after", "Start after the step with this id", type="string"), LINE),
    answers={200: StepList},
)
def list_job_steps(services: Services, tenant_id: str, job_id: str) -> Response:
    """The steps of a job that makes several kinds of output, in the order of its plan; none for
    other jobs."""
    job_id = own_job_id(services, tenant_id, job_id)
    return json_reply(steps_page(services, tenant_id, job_id, "job"))


def steps_page(services: Services, tenant_id: str, job_id: str, what: str) -> rendering.Object:
    """A page of a job's steps, as the query asks. Raises NotFound for no such ``what``."""
    parsing.one_id(job_id, what)
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    after = parsing.integer(request, "after", default=0, least=0, most=2**59)
    with services.autocommit.connect() as connection:
        rows = list_steps(connection, tenant_id, job_id, line=_line(), after=after, limit=limit + 1)
        if not rows and get_job(connection, tenant_id, job_id) is None:
            raise NotFound(f"there is no such {what}")
    return rendering.page([media_rendering.step(row) for row in rows], limit)


def find(services: Services, tenant_id: str, artifact_id: str) -> ArtifactRow:
    """The tenant's artifact. Raises NotFound."""
    parsing.one_id(artifact_id, "artifact")
    with services.autocommit.connect() as connection:
        row = get_artifact(connection, tenant_id, artifact_id)
    if row is None:
        raise NotFound("there is no such artifact")
    return row


def redirect_to(services: Services, row: ArtifactRow) -> Response:
    return Response(status=302, headers={"Location": download_url(services, row)})


def redirect_to_variant(
    services: Services, tenant_id: str, ids: Mapping[str, str], variant: str, what: str
) -> Response:
    """Where to download a variant of something, if it has it. Raises NotFound."""
    if variant not in ids:
        raise NotFound(f"this {what} has no {variant.replace('_', ' ')}, or not yet")
    return redirect_to(services, find(services, tenant_id, ids[variant]))


def _line() -> int | None:
    if "line" not in request.args:
        return None
    return parsing.integer(request, "line", default=0, least=0, most=MOST_LINES)
