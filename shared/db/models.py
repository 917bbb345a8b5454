"""Queries on ``models``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, text

from shared.states import OPEN_JOB

if TYPE_CHECKING:
    from shared.models_catalog import ModelEntry


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model that the plant made or was given."""

    path: str
    """Relative to the model's folder, with ``/``."""
    key: str
    """Of the object in the store."""
    bytes: int
    sha256: str


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
    base_model: str | None = None
    """The name of the model that it was tuned from."""
    adapter: bool = False
    """Whether it is weights on top of ``base_model`` rather than a model of its own."""
    files: tuple[ModelFile, ...] = ()
    """Where its files are kept, when the store has them; ``source`` is empty then."""
    bytes: int = 0
    """Of its files."""
    detail: dict[str, Any] = field(default_factory=dict)
    """How it was made: recipe, hyperparameters, metrics, parents, digest."""
    job_id: str | None = None
    """The job that made or imported it; None for a model of the catalog."""


COLUMNS = """
SELECT id, pool, engine, source, endpoints, settings, owned_by,
       CAST(extract(epoch FROM created_at) AS bigint), base_model, adapter, files, bytes, detail,
       job_id
  FROM models
"""
_FILES = 10
"""Which of the columns holds the files."""
VISIBLE = "deleted_at IS NULL AND (tenant_id IS NULL OR tenant_id = :tenant)"

_LIST = text(f"{COLUMNS} WHERE {VISIBLE} ORDER BY id")
_GET = text(f"{COLUMNS} WHERE id = :id AND {VISIBLE}")
_HOLD = text(f"{COLUMNS} WHERE id = :id AND {VISIBLE} FOR KEY SHARE")
_BY_ID = text(f"{COLUMNS} WHERE id = ANY(:ids)")

_OFFER = text("""
INSERT INTO models (id, pool, engine, source, endpoints, settings, owned_by, detail)
VALUES (:id, :pool, :engine, :source, :endpoints, CAST(:settings AS json), :owned_by,
        CAST(:detail AS json))
ON CONFLICT (id) DO UPDATE
   SET pool = excluded.pool, engine = excluded.engine, source = excluded.source,
       endpoints = excluded.endpoints, settings = excluded.settings,
       owned_by = excluded.owned_by, detail = excluded.detail, deleted_at = NULL
""")

_WITHDRAW = text("""
UPDATE models SET deleted_at = clock_timestamp()
 WHERE tenant_id IS NULL AND deleted_at IS NULL AND NOT (id = ANY(:ids))
""")


# Adapters can't be loaded without it, and jobs that start from it, or measure it, have yet to read
# it.
_NEEDED_BY = text(f"""
(SELECT name FROM model_aliases WHERE model = :id AND tenant_id = :tenant ORDER BY name LIMIT 1)
UNION ALL
(SELECT id FROM models
  WHERE base_model = :id AND tenant_id = :tenant AND adapter AND deleted_at IS NULL
  ORDER BY id LIMIT 1)
UNION ALL
(SELECT id FROM jobs
  WHERE model = :id AND tenant_id = :tenant AND kind = 'fine_tune' AND state IN ({OPEN_JOB})
  ORDER BY id LIMIT 1)
UNION ALL
(SELECT n.job_id FROM job_models n JOIN jobs j ON j.id = n.job_id
  WHERE n.model_id = :id AND n.tenant_id = :tenant AND j.state IN ({OPEN_JOB})
  ORDER BY n.job_id LIMIT 1)
""")

_LOCK_OWN = text("""
SELECT 1 FROM models WHERE id = :id AND tenant_id = :tenant AND deleted_at IS NULL FOR UPDATE
""")

_DELETE = text("""
UPDATE models SET deleted_at = clock_timestamp()
 WHERE id = :id AND tenant_id = :tenant AND deleted_at IS NULL
""")


def read_model(row: Row[Any]) -> Model:
    """A row of ``COLUMNS``."""
    values = list(row)
    values[_FILES] = tuple(ModelFile(**file) for file in values[_FILES])
    return Model(*values)


def list_models(connection: Connection, tenant_id: str) -> list[Model]:
    """Everything the tenant may name, by id."""
    return [read_model(row) for row in connection.execute(_LIST, {"tenant": tenant_id})]


def get_model(connection: Connection, tenant_id: str, model_id: str) -> Model | None:
    row = connection.execute(_GET, {"tenant": tenant_id, "id": model_id}).one_or_none()
    return None if row is None else read_model(row)


def models_by_id(connection: Connection, model_ids: Sequence[str]) -> dict[str, Model]:
    """For workers: models of any tenant by id, also ones deleted since the job was accepted."""
    rows = connection.execute(_BY_ID, {"ids": list(model_ids)})
    return {row.id: read_model(row) for row in rows}


def hold_model(connection: Connection, tenant_id: str, model_id: str) -> Model | None:
    """``get_model``, keeping the model from being deleted until the transaction ends."""
    held = connection.execute(_HOLD, {"tenant": tenant_id, "id": model_id}).one_or_none()
    return None if held is None else read_model(held)


def lock_own_model(connection: Connection, tenant_id: str, model_id: str) -> bool:
    """Whether the tenant itself owns such a model; nobody starts to need it, then, before the
    transaction ends."""
    values = {"tenant": tenant_id, "id": model_id}
    return connection.execute(_LOCK_OWN, values).scalar() is not None


def needed_by(connection: Connection, tenant_id: str, model_id: str) -> str | None:
    """An alias that the model holds, an adapter that is loaded onto it, or an open job that starts
    from it."""
    values = {"tenant": tenant_id, "id": model_id}
    found: str | None = connection.execute(_NEEDED_BY, values).scalars().first()
    return found


def delete_model(connection: Connection, tenant_id: str, model_id: str) -> bool:
    """Withdraws a model that the tenant owns; upkeep removes its files. False when there is no
    such model of the tenant's own."""
    values = {"tenant": tenant_id, "id": model_id}
    return connection.execute(_DELETE, values).rowcount == 1


def sync_catalog(connection: Connection, entries: Sequence[ModelEntry]) -> None:
    """Makes the shared models those of the catalog; ones no longer listed are withdrawn."""
    for entry in entries:
        connection.execute(
            _OFFER,
            {
                "id": entry.id,
                "pool": entry.serving_pool(),
                "engine": entry.engine,
                "source": entry.source,
                "endpoints": entry.served_endpoints(),
                "settings": json.dumps(entry.settings),
                "owned_by": entry.owned_by,
                "detail": json.dumps(
                    {} if entry.price is None else {"price": entry.price.model_dump()}
                ),
            },
        )
    connection.execute(_WITHDRAW, {"ids": [entry.id for entry in entries]})
