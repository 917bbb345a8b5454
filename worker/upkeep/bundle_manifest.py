"""``manifest.json``: every text and file of a campaign, and how each was made."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from shared.db.bundles import MadeArtifact, MadeStep
from worker.upkeep.bundle_contents import Contents, Text

VERSION = 1


def manifest(contents: Contents) -> bytes:
    """The manifest as JSON. Two campaigns that made the same differ in ids and times alone."""
    whole = {
        "object": "campaign.manifest",
        "version": VERSION,
        "job_id": contents.job_id,
        "line": contents.line,
        "created_at": _time(contents.created_at),
        "brief": contents.brief,
        "texts": [_text(contents, text) for text in contents.texts],
        "artifacts": [_artifact(contents, artifact) for artifact in contents.artifacts],
        "steps": [_step(step) for step in contents.steps],
    }
    return (json.dumps(whole, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "replace")


def _text(contents: Contents, text: Text) -> dict[str, Any]:
    entry = {
        "kind": text.kind,
        "language": text.place.language,
        "variant": text.place.variant,
        "audience": _audience(contents, text.place.audience),
        "text": text.text,
        "empty": not text.text,
        "file": text.file,
        **_origin(contents, text.origin.step),
    }
    if not text.text:
        entry["stand_in"] = contents.stand_in
    return entry


def _artifact(contents: Contents, artifact: MadeArtifact) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "name": artifact.name,
        "role": artifact.role,
        "parent_id": artifact.parent_id,
        "file": contents.files[artifact.id],
        "media_type": artifact.media_type,
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        "width": artifact.width,
        "height": artifact.height,
        "seconds": artifact.seconds,
        **_origin(contents, artifact.step),
        "provenance": artifact.provenance,
        "created_at": _time(artifact.created_at),
    }


def _origin(contents: Contents, step: str | None) -> dict[str, Any]:
    origin = None if step is None else contents.origins.get(step)
    if origin is None:
        return {"step": step, "model": None, "prompt": None, "seed": None}
    return {
        "step": step,
        "model": origin.model,
        "prompt": origin.prompt,
        "seed": origin.seed,
    }


def _step(step: MadeStep) -> dict[str, Any]:
    return {
        "name": step.name,
        "endpoint": step.endpoint,
        "model": step.model,
        "needs": step.needs,
        "attempts": step.attempts,
        "started_at": _time(step.started_at),
        "ended_at": _time(step.ended_at),
    }


def _audience(contents: Contents, number: int | None) -> str | None:
    return None if number is None else str(contents.audiences[number - 1]["name"])


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
