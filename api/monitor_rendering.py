"""From monitors to the objects that tenants see. Pure."""

from __future__ import annotations

from api.rendering import Object
from api.schedule_rendering import source
from shared.db.monitors import MonitorRow, WindowRow


def monitor(row: MonitorRow) -> Object:
    error = None
    if row.error_code is not None:
        error = {"code": row.error_code, "message": row.error_message or ""}
    return {
        "id": row.id,
        "object": "monitor",
        "created_at": int(row.created_at),
        "updated_at": int(row.updated_at),
        "name": row.name,
        "status": row.state,
        "model": row.model,
        "label": row.label,
        "limit": row.share_limit,
        "minimum": row.minimum,
        "window": {"minutes": row.window_seconds // 60},
        "source": None if row.source is None else source(row.source),
        "column": row.text_column,
        "waiting": row.waiting,
        "batch_id": row.batch_id,
        "error": error,
    }


def window(row: WindowRow) -> Object:
    judged = sum(row.labels.values())
    return {
        "id": row.id,
        "object": "monitor.window",
        "monitor_id": row.monitor_id,
        "starts_at": int(row.starts_at),
        "ends_at": int(row.ends_at),
        "texts": row.texts,
        "judged": judged,
        "failed": row.failed,
        "labels": row.labels,
        "share": round(row.labels.get(row.label, 0) / judged, 6) if judged else None,
        "alerted_at": None if row.alerted_at is None else int(row.alerted_at),
    }
