"""Videos, as OpenAI's clients ask for them: jobs of kind ``video``."""

from __future__ import annotations

from flask import Response, request
from sqlalchemy import Connection

from api import media_rendering, parsing, rendering
from api.media_requests import read_media_request
from api.rendering import Object
from api.routes.artifacts import redirect_to_variant
from api.routes.deletions import remove_now, with_record
from api.routes.replies import json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, MULTIPART, RouteTable, query
from api.services import Services
from api.shapes import DeletedVideo, Video, VideoList
from api.submitting import COMPOSITIONS, VIDEOS, submit_once
from shared.db.briefs import Brief, briefs_of
from shared.db.jobs import JobRow, get_job, list_jobs
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    MediaTooLarge,
    ModelNotFound,
    NotFound,
    StorageFull,
    StorageUnavailable,
    UnsupportedMedia,
    UnsupportedParameter,
)
from shared.lifecycle.deletion import request_job_deletion
from shared.specs import CompositionSpec, VideoSpec

routes = RouteTable("Videos", "Videos that are generated, or composed of pictures and narration")

ORDERS = ("asc", "desc")
_ERRORS = (UnsupportedParameter, UnsupportedMedia, MediaTooLarge, ModelNotFound,
           IdempotencyMismatch, StorageUnavailable, StorageFull)  # fmt: skip


@routes.post(
    VIDEOS,
    body=VideoSpec,
    body_types=("application/json", MULTIPART),
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Video},
    errors=_ERRORS,
)
def create_video(services: Services, tenant_id: str) -> Response:
    """Asks for a video from a text: generated when the model is a video pipeline, composed of
    narration, pictures and captions when it is a composer."""
    return _create(services, tenant_id, VIDEOS)


@routes.post(
    COMPOSITIONS,
    body=CompositionSpec,
    body_types=("application/json", MULTIPART),
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Video},
    errors=_ERRORS,
)
def create_composition(services: Services, tenant_id: str) -> Response:
    """Asks for a video put together from pictures and sounds that exist already."""
    return _create(services, tenant_id, COMPOSITIONS)


def _create(services: Services, tenant_id: str, endpoint: str) -> Response:
    with read_media_request(services, endpoint, f"POST {endpoint}") as asked:
        video_id, submission = submit_once(
            services, tenant_id, asked.once, lambda: asked.prepare(services, tenant_id)
        )
    if submission is None:
        return _reply(*_find(services, tenant_id, video_id))
    body = submission.body
    members = {name: body.get(name) for name in media_rendering.VIDEO_MEMBERS}
    return _reply(submission.as_new_job(), Brief(members, None))


@routes.get(
    VIDEOS,
    parameters=(
        LIMIT,
        AFTER,
        query("order", "By time of creation", type="string", enum=[*ORDERS], default="desc"),
    ),
    answers={200: VideoList},
)
def list_videos(services: Services, tenant_id: str) -> Response:
    """Videos, newest first unless asked otherwise."""
    limit, after = parsing.page(request)
    order = parsing.choice(request, "order", ORDERS) or "desc"
    with services.autocommit.connect() as connection:
        rows = list_jobs(
            connection, tenant_id, kinds=["video"], after=after, limit=limit + 1, order=order
        )
        briefs = _briefs(connection, tenant_id, [row.id for row in rows])
    shown = [media_rendering.video(row, briefs[row.id]) for row in rows if row.id in briefs]
    return json_reply(rendering.page(shown, limit))


@routes.get("/v1/videos/<video_id>", answers={200: Video})
def retrieve_video(services: Services, tenant_id: str, video_id: str) -> Response:
    """A video and how far it is; `openai-poll-after-ms` says when to ask again."""
    return _reply(*_find(services, tenant_id, video_id))


@routes.get(
    "/v1/videos/<video_id>/content",
    parameters=(
        query(
            "variant",
            "What to download",
            type="string",
            enum=[*media_rendering.VIDEO_VARIANTS],
            default="video",
        ),
    ),
    answers={302: "The content is at `Location`, for a while; ranges of it can be asked for there"},
    errors=(StorageUnavailable,),
)
def retrieve_video_content(services: Services, tenant_id: str, video_id: str) -> Response:
    """Where to download a video that is completed."""
    variant = parsing.choice(request, "variant", media_rendering.VIDEO_VARIANTS) or "video"
    _, brief = _find(services, tenant_id, video_id)
    ids = media_rendering.variant_ids(brief.result, media_rendering.VIDEO_VARIANTS)
    return redirect_to_variant(services, tenant_id, ids, variant, "video")


@routes.delete("/v1/videos/<video_id>", answers={200: DeletedVideo}, errors=(Conflict,))
def delete_video(services: Services, tenant_id: str, video_id: str) -> Response:
    """Deletes a video that has ended: its prompt, its result and its files. `Pressrun-Deletion` is
    the record of it."""
    row, _ = _find(services, tenant_id, video_id)
    if not rendering.has_ended(row.state):
        raise Conflict("this video has not ended: cancel its job first")
    with services.transaction() as connection:
        begun = request_job_deletion(
            connection,
            tenant_id=tenant_id,
            job_id=video_id,
            grace_seconds=services.settings.deletion_grace_seconds,
        )
    remove_now(services, begun)
    return with_record(
        json_reply({"id": video_id, "object": "video.deleted", "deleted": True}), begun
    )


def _find(services: Services, tenant_id: str, video_id: str) -> tuple[JobRow, Brief]:
    parsing.one_id(video_id, "video")
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, video_id)
        if found is None or found[0].kind != "video":
            raise NotFound("there is no such video")
        briefs = _briefs(connection, tenant_id, [video_id])
    if video_id not in briefs:
        raise NotFound("there is no such video")
    return found[0], briefs[video_id]


def _briefs(connection: Connection, tenant_id: str, video_ids: list[str]) -> dict[str, Brief]:
    members = media_rendering.VIDEO_MEMBERS
    return briefs_of(connection, tenant_id, video_ids, members=members)


def _reply(row: JobRow, brief: Brief) -> Response:
    shown: Object = media_rendering.video(row, brief)
    headers = {}
    if not rendering.has_ended(row.state):
        headers["openai-poll-after-ms"] = str(1_000 * rendering.retry_after(row))
    return json_reply(shown, headers=headers)
