"""From jobs of kind import to what is shown of them. Pure."""

from __future__ import annotations

from api import rendering
from api.rendering import Object
from shared.db.imports import Import
from shared.db.jobs import JobRow
from shared.specs.imports import ImportSpec
from shared.states import JobState

_MEMBERS = ("code", "message", "param", "line")


def model_import(row: JobRow, found: Import) -> Object:
    """An import, with its model or with what is wrong with its files."""
    spec = ImportSpec.model_validate(found.spec)
    ended = rendering.has_ended(row.state)
    shown: Object = {
        "id": row.id,
        "object": "model.import",
        "status": row.state,
        "stopping": row.stop_reason is not None and not ended,
        "file": spec.file,
        "suffix": spec.suffix,
        "base_model": spec.base_model,
        "model": (found.result or {}).get("model"),
        "report": found.detail.get("imported"),
        "error": _error(row),
        "metadata": row.metadata,
        "created_at": rendering.created_at_of(row.id, row.created_at),
        "finished_at": rendering.seconds_of(row.ended_at),
    }
    if row.queue_position is not None:
        shown["queue_position"] = row.queue_position
    return shown


def _error(row: JobRow) -> Object | None:
    if row.error_code is None or row.state != JobState.FAILED:
        return None
    error = {"code": row.error_code, "message": row.error_message or "", "param": row.error_param}
    if row.errors is None:
        return error
    return error | {"files": [{n: line.get(n) for n in _MEMBERS} for line in row.errors]}
