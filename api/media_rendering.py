"""From rows to the artifacts, steps, videos and campaigns that tenants see. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api import job_rendering, rendering
from api.rendering import Object
from shared.db.artifacts import ArtifactRow
from shared.db.briefs import Brief
from shared.db.jobs import JobRow
from shared.db.models import Model
from shared.db.steps import StepRow
from shared.specs import CampaignSpec
from shared.states import JobState, ShardState, is_terminal

VIDEO_MEMBERS = ("prompt", "seconds", "size")
"""Of a video's spec, what its object shows."""
CAMPAIGN_MEMBERS = ("product", "languages", "outputs")

VIDEO_VARIANTS = {
    "video": "artifact_id",
    "thumbnail": "thumbnail_id",
    "spritesheet": "spritesheet_id",
    "captions": "captions_id",
}
CAMPAIGN_VARIANTS = {
    "zip": "zip_id",
    "manifest": "manifest_id",
    "contact_sheet": "contact_sheet_id",
}
"""What can be downloaded, and the member of the job's result that names its artifact."""

_UNKNOWN = "auto"
"""A video's length or size before anybody knows it."""
_VIDEO_STATUS = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.SUCCEEDED: "completed",
}


def artifact(row: ArtifactRow, url: str) -> Object:
    return {
        "id": row.id,
        "object": "artifact",
        "job_id": row.job_id,
        "line": row.line,
        "step": row.step,
        "role": row.role,
        "name": row.name,
        "media_type": row.media_type,
        "bytes": row.bytes,
        "sha256": row.sha256,
        "width": row.width,
        "height": row.height,
        "seconds": row.seconds,
        "parent_id": row.parent_id,
        "provenance": row.provenance,
        "created_at": int(row.created_at),
        "url": url,
    }


def step(row: StepRow) -> Object:
    error: Object | None = None
    if row.error_code is not None and is_terminal(ShardState(row.state)):
        error = {"code": row.error_code, "message": row.error_message or "", "param": None}
    return {
        "id": str(row.shard_id),
        "object": "job.step",
        "name": row.name,
        "line": row.line,
        "endpoint": row.endpoint,
        "model": row.model,
        "needs": row.needs,
        "state": row.state,
        "progress": 1.0 if row.state == ShardState.SUCCEEDED else round(row.progress or 0.0, 4),
        "attempts": row.attempts,
        "error": error,
        "created_at": int(row.created_at),
        "started_at": rendering.seconds_of(row.started_at),
        "ended_at": rendering.seconds_of(row.ended_at),
    }


def video(row: JobRow, brief: Brief) -> Object:
    """An OpenAI video. Cancelled and expired ones have failed, with that as the code."""
    status = _VIDEO_STATUS.get(JobState(row.state), "failed")
    made = brief.result or {}
    return {
        "id": row.id,
        "object": "video",
        "model": row.model,
        "alias": row.alias,
        "status": status,
        "progress": int(100 * rendering.progress_of(row)),
        "prompt": brief.asked["prompt"],
        "seconds": _seconds_text(made.get("seconds"), brief.asked["seconds"]),
        "size": made.get("size") or brief.asked["size"] or _UNKNOWN,
        "error": _video_error(row) if status == "failed" else None,
        "created_at": rendering.created_at_of(row.id, row.created_at),
        "completed_at": rendering.seconds_of(row.ended_at) if status == "completed" else None,
        "expires_at": None,
        "remixed_from_video_id": None,
        "captions_id": made.get("captions_id"),
    }


def _seconds_text(made: float | None, asked: Any) -> str:
    if made is not None:
        return f"{made:.2f}".rstrip("0").rstrip(".")
    return _UNKNOWN if asked is None else str(asked)


def _video_error(row: JobRow) -> Object:
    if row.state == JobState.FAILED:
        return {"code": row.error_code or "internal_error", "message": row.error_message or ""}
    why = "was cancelled" if row.state == JobState.CANCELLED else "was not done by its deadline"
    return {"code": row.state, "message": f"the video {why}"}


def variant_ids(result: Mapping[str, Any] | None, variants: Mapping[str, str]) -> dict[str, str]:
    """The artifact ids of those ``variants`` that a result has."""
    made = {name: (result or {}).get(member) for name, member in variants.items()}
    return {name: found for name, found in made.items() if isinstance(found, str)}


def campaign(row: JobRow, brief: Brief, urls: Mapping[str, str]) -> Object:
    """``urls`` are those of its variants, as far as they exist."""
    job = job_rendering.job(row)
    asked = brief.asked
    shown = ("stopping", "progress", "model", "alias", "error", "usage", "metadata", "created_at",
             "started_at", "ended_at", "expires_at")  # fmt: skip
    return {
        "id": row.id,
        "object": "campaign",
        "status": row.state,
        "steps": {
            "total": row.rows_total,
            "completed": row.rows_completed,
            "failed": row.rows_failed,
        },
        "product": asked["product"],
        "languages": asked["languages"] or CampaignSpec.model_fields["languages"].default,
        "outputs": asked["outputs"] or CampaignSpec.model_fields["outputs"].default,
        "artifacts": (brief.result or {}).get("artifacts", 0),
        **{f"{name}_url": urls.get(name) for name in CAMPAIGN_VARIANTS},
        **{name: job[name] for name in shown},
    }


def voices(model: Model) -> list[Object]:
    """The voices that a model's settings list."""
    listed = model.settings.get("voices") or []
    return [
        {
            "id": str(voice["id"]),
            "object": "audio.voice",
            "name": str(voice.get("name") or voice["id"]),
            "language": voice.get("language"),
            "model": model.id,
        }
        for voice in listed
    ]
