"""Policies, archived jobs and deletions as JSON."""

from __future__ import annotations

from api.rendering import Object
from shared.db.archive import ArchivedJob
from shared.db.deletions import DeletionRow
from shared.db.policies import Policy

_TIMES = ("created_at", "started_at", "ended_at", "archived_at")


def policy(tenant_id: str, found: Policy) -> Object:
    return {
        "object": "retention_policy",
        "tenant_id": tenant_id,
        "days": dict(found.days),
        "own": list(found.own),
    }


def archived_job(row: ArchivedJob) -> Object:
    shown: Object = {"id": row.id, "object": "archived_job"} | row._asdict()
    return shown | {name: _whole(shown[name]) for name in _TIMES}


def deletion(row: DeletionRow) -> Object:
    return {
        "id": row.id,
        "object": "deletion",
        "kind": row.kind,
        "target": row.target,
        "tenant_id": row.tenant_id,
        "status": "pending" if row.completed_at is None else "complete",
        "created_at": int(row.created_at),
        "settles_at": int(row.settles_at),
        "completed_at": _whole(row.completed_at),
        "rows": row.rows,
        "objects": row.objects,
        "keys_sha256": row.keys_sha256,
        "usage": row.usage,
    }


def deleted_object(key_sha256: str) -> Object:
    return {"id": key_sha256, "object": "deleted_object"}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
