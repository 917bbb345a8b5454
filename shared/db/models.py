"""Queries on ``models``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import models

if TYPE_CHECKING:
    from shared.models_catalog import ModelEntry


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the API and the workers see it."""

    id: str
    pool: str
    engine: str
    source: str
    endpoints: list[str]
    settings: dict[str, Any]
    owned_by: str
    created: int
    """Unix seconds."""


def _visible_to(tenant_id: str) -> Select[Any]:
    return select(models).where(
        models.c.deleted_at.is_(None),
        or_(models.c.tenant_id.is_(None), models.c.tenant_id == tenant_id),
    )


def _model(row: Any) -> Model:
    return Model(
        row.id,
        row.pool,
        row.engine,
        row.source,
        list(row.endpoints),
        dict(row.settings),
        row.owned_by,
        int(row.created_at.timestamp()),
    )


def list_models(connection: Connection, tenant_id: str) -> list[Model]:
    """Everything the tenant may name, by id."""
    return [_model(row) for row in connection.execute(_visible_to(tenant_id).order_by(models.c.id))]


def get_model(connection: Connection, tenant_id: str, model_id: str) -> Model | None:
    row = connection.execute(_visible_to(tenant_id).where(models.c.id == model_id)).one_or_none()
    return None if row is None else _model(row)


def models_by_id(connection: Connection, model_ids: Sequence[str]) -> dict[str, Model]:
    """For workers: models of any tenant by id, also ones deleted since the job was accepted."""
    rows = connection.execute(select(models).where(models.c.id.in_(model_ids)))
    return {row.id: _model(row) for row in rows}


def sync_catalog(connection: Connection, entries: Sequence[ModelEntry]) -> None:
    """Makes the shared models those of the catalog; ones no longer listed are withdrawn."""
    for entry in entries:
        values = {
            "pool": entry.pool,
            "engine": entry.engine,
            "source": entry.source,
            "endpoints": entry.served_endpoints(),
            "settings": entry.settings,
            "owned_by": entry.owned_by,
            "deleted_at": None,
        }
        statement = insert(models).values(id=entry.id, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
    connection.execute(
        models.update()
        .where(
            models.c.tenant_id.is_(None),
            models.c.deleted_at.is_(None),
            models.c.id.not_in([entry.id for entry in entries]),
        )
        .values(deleted_at=func.clock_timestamp())
    )
