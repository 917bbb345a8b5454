"""Models that trainings make: rows of ``models`` that belong to a tenant and a job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from shared.db.models import ModelFile

_ADD = text("""
INSERT INTO models AS m (id, tenant_id, job_id, pool, engine, source, endpoints, settings,
                         owned_by, base_model, adapter, files, bytes, detail)
VALUES (:id, :tenant, :job, :pool, :engine, '', :endpoints, CAST(:settings AS json), :owned_by,
        :base_model, :adapter, CAST(:files AS json), :bytes, CAST(:detail AS json))
    ON CONFLICT (id) DO UPDATE
   SET pool = excluded.pool, engine = excluded.engine, endpoints = excluded.endpoints,
       settings = excluded.settings, base_model = excluded.base_model,
       adapter = excluded.adapter, files = excluded.files, bytes = excluded.bytes,
       detail = excluded.detail
 WHERE m.tenant_id = excluded.tenant_id AND m.job_id = excluded.job_id
""")

_WITHDRAW = text("""
UPDATE models SET deleted_at = coalesce(deleted_at, clock_timestamp())
 WHERE job_id = :job AND id = ANY(:ids) RETURNING files
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """A model whose files are stored."""

    id: str
    pool: str
    engine: str
    base_model: str | None = None
    adapter: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    endpoints: Sequence[str] = ()
    files: Sequence[ModelFile] = ()
    bytes: int = 0
    detail: dict[str, Any] = field(default_factory=dict)
    """recipe, hyperparameters, metrics, data digest, parents: what its page says of it."""
    owned_by: str = "pressrun"


def add_model(
    connection: Connection,
    tenant_id: str,
    job_id: str,
    model: NewModel,
    *,
    files: Sequence[ModelFile] = (),
) -> None:
    """Offers the model to its tenant. Doing it again replaces what it is made of; one that the
    tenant has deleted stays deleted. ``files`` take the place of the model's own."""
    stored = list(files or model.files)
    connection.execute(
        _ADD,
        {
            "id": model.id,
            "tenant": tenant_id,
            "job": job_id,
            "pool": model.pool,
            "engine": model.engine,
            "endpoints": list(model.endpoints),
            "settings": json.dumps(model.settings),
            "owned_by": model.owned_by,
            "base_model": model.base_model,
            "adapter": model.adapter,
            "files": json.dumps([asdict(file) for file in stored]),
            "bytes": model.bytes or sum(file.bytes for file in stored),
            "detail": json.dumps(model.detail),
        },
    )


def withdraw_models(connection: Connection, job_id: str, ids: Sequence[str]) -> set[str]:
    """Models of the job that are offered no more; gives the keys of their files."""
    rows = connection.execute(_WITHDRAW, {"job": job_id, "ids": list(ids)})
    return {file["key"] for row in rows for file in row.files}
