"""Aliases and their histories as tenants see them. Pure."""

from __future__ import annotations

from api import fine_tuning_rendering, rendering
from api.rendering import Object
from shared.db.aliases import AliasMove, AliasRow
from shared.db.models import Model


def alias(row: AliasRow) -> Object:
    return {
        "id": row.name,
        "object": "model_alias",
        "name": row.name,
        "model": row.model,
        "version": row.version,
        "gate_job_id": row.gate_job_id,
        "created_at": int(row.created_at),
        "moved_at": rendering.seconds_of(row.moved_at),
    }


def move(row: AliasMove, name: str) -> Object:
    return {
        "id": str(row.id),
        "object": "model_alias.move",
        "alias": name,
        "version": row.version,
        "from_model": row.from_model,
        "to_model": row.to_model,
        "by": row.cause,
        "outcome": row.outcome,
        "job_id": row.job_id,
        "evaluation": row.evaluation,
        "created_at": int(row.created_at),
    }


def gate(kept: Object | None) -> Object | None:
    """The gate that an evaluation is for, as its job keeps it."""
    if kept is None:
        return None
    asked = {name: kept[name] for name in ("alias", "candidate", "holder", "min_improvement")}
    decided = ("outcome", "reason", "holder_value", "candidate_value")
    return asked | {name: kept.get(name) for name in decided}


def as_model(name: str, holder: Model) -> Object:
    """An alias among the models: its holder under another name."""
    return fine_tuning_rendering.model(holder) | {"id": name, "alias_of": holder.id}
