"""Signed download URLs of artifacts, and results in which they stand."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from flask import request

from api.services import Services
from shared.db.artifacts import ArtifactRow, find_artifacts

_NAMES_ONE = '"artifact_id"'
"""Where a result holds this, quotes and all, it has such a member: inside a text the quotes would
be escaped."""

_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_STEP_CHARACTERS = 80


def absolute(services: Services, path: str) -> str:
    """A path of the API as a URL that partners reach."""
    base = services.settings.public_url or request.url_root
    return base.rstrip("/") + path


def download_url(services: Services, artifact: ArtifactRow) -> str:
    """A URL that needs no key, for a while."""
    url = services.store.download_url(
        artifact.storage_key,
        filename=filename_of(artifact),
        media_type=artifact.media_type,
        seconds=services.settings.download_url_seconds,
        inline=True,
    )
    return absolute(services, url) if url.startswith("/") else url


def filename_of(artifact: ArtifactRow) -> str:
    """What the file is called when it is saved: apart from its siblings, and safe anywhere."""
    line = str(artifact.line) if artifact.line else ""
    step = _ODD.sub("-", artifact.step or "")[:_MAX_STEP_CHARACTERS].strip("-.")
    parts = (artifact.job_id, line, step, _ODD.sub("-", artifact.name))
    return "-".join(part for part in parts if part)


def has_links(result: str | None) -> bool:
    return result is not None and _NAMES_ONE in result


def life_stamp(services: Services) -> str:
    """Changes twice in the life of a signed URL: whoever asks with an ETag that contains it gets
    new URLs before the old ones expire."""
    return str(int(time.time() * 2 / services.settings.download_url_seconds))


def with_fresh_links(services: Services, tenant_id: str, result: str | None) -> str | None:
    """The result with a fresh signed URL for every ``url`` that stands beside an ``artifact_id``.
    One that names no artifact keeps its text, byte for byte."""
    if result is None or not has_links(result):
        return result
    document = json.loads(result)
    refresh(services, tenant_id, document)
    return json.dumps(document, separators=(",", ":"))


def refresh(services: Services, tenant_id: str, document: Any) -> None:
    """``with_fresh_links`` in place."""
    named = [item for item in _objects(document) if isinstance(item.get("artifact_id"), str)]
    linked = [item for item in named if "url" in item]
    if not linked:
        return
    with services.autocommit.connect() as connection:
        found = find_artifacts(connection, tenant_id, {item["artifact_id"] for item in linked})
    for item in linked:
        artifact = found.get(item["artifact_id"])
        if artifact is not None:
            item["url"] = download_url(services, artifact)


def signed_urls(
    services: Services, tenant_id: str, artifact_ids: Mapping[str, str]
) -> dict[str, str]:
    """Signed URLs of those ``artifact_ids`` (any name → id) that exist, by the same names."""
    if not artifact_ids:
        return {}
    with services.autocommit.connect() as connection:
        found = find_artifacts(connection, tenant_id, set(artifact_ids.values()))
    return {
        name: download_url(services, found[artifact_id])
        for name, artifact_id in artifact_ids.items()
        if artifact_id in found
    }


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
