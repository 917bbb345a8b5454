"""Campaigns: briefs that become texts, pictures, voice-overs and videos; jobs of kind
``campaign``."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request
from sqlalchemy import Connection

from api import media_rendering, parsing, rendering
from api.links import download_url, signed_urls
from api.media_requests import read_media_request
from api.rendering import Object
from api.routes.artifacts import LINE, redirect_to_variant, steps_page
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, MULTIPART, RouteTable, query
from api.services import Services
from api.shapes import Campaign, CampaignList, StepList
from api.submitting import CAMPAIGNS, submit_once
from api.webhook_requests import CampaignRequest
from shared.db.artifacts import find_artifacts
from shared.db.briefs import Brief, briefs_of
from shared.db.jobs import JobRow, get_job, list_jobs
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    MediaTooLarge,
    ModelNotFound,
    NotFound,
    SigningSecretMissing,
    StorageFull,
    StorageUnavailable,
    UnsupportedMedia,
    UnsupportedParameter,
    UrlNotAllowed,
)

routes = RouteTable("Campaigns", "Briefs that become texts, pictures, voice-overs and videos")


@routes.post(
    CAMPAIGNS,
    body=CampaignRequest,
    body_types=("application/json", MULTIPART),
    parameters=(IDEMPOTENCY_KEY,),
    answers={202: Campaign, 200: Campaign},
    errors=(UnsupportedParameter, UnsupportedMedia, MediaTooLarge, ModelNotFound,
            IdempotencyMismatch, StorageUnavailable, StorageFull, UrlNotAllowed,
            SigningSecretMissing),
)  # fmt: skip
def create_campaign(services: Services, tenant_id: str) -> Response:
    """Plans and submits a campaign. Without a `model`, the first that writes does the texts."""
    with read_media_request(services, CAMPAIGNS, f"POST {CAMPAIGNS}") as asked:
        campaign_id, submission = submit_once(
            services, tenant_id, asked.once, lambda: asked.prepare(services, tenant_id)
        )
    headers = {"Location": f"{CAMPAIGNS}/{campaign_id}"}
    if submission is None:
        row, brief = _find(services, tenant_id, campaign_id)
        return json_reply(_show(services, tenant_id, row, brief), headers=headers)
    members = {name: submission.body.get(name) for name in media_rendering.CAMPAIGN_MEMBERS}
    shown = media_rendering.campaign(submission.as_new_job(), Brief(members, None), {})
    headers["Retry-After"] = "1"
    return json_reply(shown, HTTPStatus.ACCEPTED, headers)


@routes.get(CAMPAIGNS, parameters=(LIMIT, AFTER), answers={200: CampaignList})
def list_campaigns(services: Services, tenant_id: str) -> Response:
    """Campaigns, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = list_jobs(connection, tenant_id, kinds=["campaign"], after=after, limit=limit + 1)
        briefs = _briefs(connection, tenant_id, [row.id for row in rows])
        ids = {row.id: _variants(briefs[row.id]) for row in rows if row.id in briefs}
        wanted = {artifact for found in ids.values() for artifact in found.values()}
        artifacts = find_artifacts(connection, tenant_id, wanted) if wanted else {}
    shown = [
        media_rendering.campaign(
            row,
            briefs[row.id],
            {
                name: download_url(services, artifacts[artifact])
                for name, artifact in ids[row.id].items()
                if artifact in artifacts
            },
        )
        for row in rows
        if row.id in briefs
    ]
    return json_reply(rendering.page(shown, limit))


@routes.get(
    "/v1/campaigns/<campaign_id>",
    parameters=(
        query("wait", "Answer once it has ended, or after so many seconds", type="number"),
    ),
    answers={200: Campaign},
)
def retrieve_campaign(services: Services, tenant_id: str, campaign_id: str) -> Response:
    """A campaign, how far it is, and where its bundle is once it is done."""
    seconds = parsing.wait_seconds(request, services.settings.max_wait_seconds)
    row, brief = _find(services, tenant_id, campaign_id)
    if seconds and not rendering.has_ended(row.state):
        services.waiter.wait(tenant_id, campaign_id, seconds)
        row, brief = _find(services, tenant_id, campaign_id)
    headers = {}
    if not rendering.has_ended(row.state):
        headers["Retry-After"] = str(rendering.retry_after(row))
    return json_reply(_show(services, tenant_id, row, brief), headers=headers)


@routes.post(
    "/v1/campaigns/<campaign_id>/cancel",
    answers={202: Campaign, 200: Campaign},
    errors=(Conflict,),
)
def cancel_campaign(services: Services, tenant_id: str, campaign_id: str) -> Response:
    """Asks a campaign to stop: steps that wait end at once, those that run soon. Finished ones
    stay. Asking again changes nothing."""
    parsing.one_id(campaign_id, "campaign")
    _, _, stopping = cancel_job(services, tenant_id, campaign_id, kind="campaign")
    row, brief = _find(services, tenant_id, campaign_id)
    status = HTTPStatus.ACCEPTED if stopping else HTTPStatus.OK
    return json_reply(_show(services, tenant_id, row, brief), status)


@routes.get(
    "/v1/campaigns/<campaign_id>/steps",
    parameters=(LIMIT, query("after", "Start after the step with this id", type="string"), LINE),
    answers={200: StepList},
)
def list_campaign_steps(services: Services, tenant_id: str, campaign_id: str) -> Response:
    """What is done for the campaign, in the order of its plan."""
    _find(services, tenant_id, campaign_id)
    return json_reply(steps_page(services, tenant_id, campaign_id, "campaign"))


@routes.get(
    "/v1/campaigns/<campaign_id>/content",
    parameters=(
        query(
            "variant",
            "What to download",
            type="string",
            enum=[*media_rendering.CAMPAIGN_VARIANTS],
            default="zip",
        ),
    ),
    answers={302: "The content is at `Location`, for a while; ranges of it can be asked for there"},
    errors=(StorageUnavailable,),
)
def retrieve_campaign_content(services: Services, tenant_id: str, campaign_id: str) -> Response:
    """Where to download a campaign's bundle."""
    variant = parsing.choice(request, "variant", media_rendering.CAMPAIGN_VARIANTS) or "zip"
    _, brief = _find(services, tenant_id, campaign_id)
    return redirect_to_variant(services, tenant_id, _variants(brief), variant, "campaign")


def _show(services: Services, tenant_id: str, row: JobRow, brief: Brief) -> Object:
    urls = signed_urls(services, tenant_id, _variants(brief))
    return media_rendering.campaign(row, brief, urls)


def _variants(brief: Brief) -> dict[str, str]:
    return media_rendering.variant_ids(brief.result, media_rendering.CAMPAIGN_VARIANTS)


def _find(services: Services, tenant_id: str, campaign_id: str) -> tuple[JobRow, Brief]:
    parsing.one_id(campaign_id, "campaign")
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, campaign_id)
        if found is None or found[0].kind != "campaign":
            raise NotFound("there is no such campaign")
        briefs = _briefs(connection, tenant_id, [campaign_id])
    if campaign_id not in briefs:
        raise NotFound("there is no such campaign")
    return found[0], briefs[campaign_id]


def _briefs(connection: Connection, tenant_id: str, ids: list[str]) -> dict[str, Brief]:
    members = media_rendering.CAMPAIGN_MEMBERS
    return briefs_of(connection, tenant_id, ids, members=members)
