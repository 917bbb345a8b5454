"""Queries on aliases: who holds them, where they have been, what a name stands for.

``shared.lifecycle.aliases`` moves them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.db.models import COLUMNS, VISIBLE, Model, get_model, hold_model, read_model
from shared.specs.aliases import is_alias_name


class AliasRow(NamedTuple):
    """An alias; times in Unix seconds."""

    id: str
    name: str
    model: str | None
    """None while nobody has held it."""
    version: int
    """How often it was moved."""
    gate_job_id: str | None
    """The evaluation of the newest gate."""
    created_at: float
    moved_at: float | None


class AliasMove(NamedTuple):
    """A row of an alias' history; times in Unix seconds."""

    id: int
    version: int | None
    """None for a gate that stayed shut."""
    from_model: str | None
    to_model: str
    cause: str
    outcome: str
    job_id: str | None
    evaluation: dict[str, Any] | None
    created_at: float


_ALIAS = """
SELECT id, name, model, version, gate_job_id,
       CAST(extract(epoch FROM created_at) AS double precision),
       CAST(extract(epoch FROM moved_at) AS double precision)
  FROM model_aliases
"""
_GET = text(f"{_ALIAS} WHERE tenant_id = :tenant AND name = :name")
_LIST = text(f"""
{_ALIAS} WHERE tenant_id = :tenant AND (CAST(:after AS text) IS NULL OR name > :after)
 ORDER BY name LIMIT :limit
""")

_MOVES = text("""
SELECT id, version, from_model, to_model, cause, outcome, job_id, evaluation,
       CAST(extract(epoch FROM created_at) AS double precision)
  FROM model_alias_moves
 WHERE tenant_id = :tenant AND alias_id = :alias
   AND (CAST(:before AS bigint) IS NULL OR id < :before)
 ORDER BY id DESC LIMIT :limit
""")

# A model by that name comes first: an alias never hides one.
_STANDS_FOR = f"""
{COLUMNS} WHERE {VISIBLE} AND id = coalesce(
    (SELECT m.id FROM models m WHERE m.id = :name AND m.deleted_at IS NULL
        AND (m.tenant_id IS NULL OR m.tenant_id = :tenant)),
    (SELECT a.model FROM model_aliases a WHERE a.tenant_id = :tenant AND a.name = :name))
"""
_NAMED = text(_STANDS_FOR)
_HOLD_NAMED = text(f"{_STANDS_FOR} FOR KEY SHARE")

_HELD_BY = text("""
SELECT a.name, a.model FROM model_aliases a JOIN models m ON m.id = a.model
 WHERE a.tenant_id = :tenant AND m.deleted_at IS NULL
   AND (m.tenant_id IS NULL OR m.tenant_id = :tenant)
 ORDER BY a.name
""")


def get_alias(connection: Connection, tenant_id: str, name: str) -> AliasRow | None:
    row = connection.execute(_GET, {"tenant": tenant_id, "name": name}).one_or_none()
    return None if row is None else AliasRow._make(row)


def list_aliases(
    connection: Connection, tenant_id: str, *, after: str | None, limit: int
) -> list[AliasRow]:
    """By name, those beyond the name ``after``."""
    values = {"tenant": tenant_id, "after": after, "limit": limit}
    return [AliasRow._make(row) for row in connection.execute(_LIST, values)]


def list_moves(
    connection: Connection, tenant_id: str, alias_id: str, *, before: int | None, limit: int
) -> list[AliasMove]:
    """Newest first, those older than the row ``before``."""
    values = {"tenant": tenant_id, "alias": alias_id, "before": before, "limit": limit}
    return [AliasMove._make(row) for row in connection.execute(_MOVES, values)]


def held_aliases(connection: Connection, tenant_id: str) -> dict[str, str]:
    """The model of every alias of the tenant that can be asked, by the alias' name."""
    rows = connection.execute(_HELD_BY, {"tenant": tenant_id})
    return {row.name: row.model for row in rows}


def model_named(connection: Connection, tenant_id: str, name: str) -> Model | None:
    """The model of that name, or the one that holds the alias of that name now: its ``id`` then
    differs from ``name``."""
    if not is_alias_name(name):
        return get_model(connection, tenant_id, name)
    row = connection.execute(_NAMED, {"tenant": tenant_id, "name": name}).one_or_none()
    return None if row is None else read_model(row)


def hold_named(connection: Connection, tenant_id: str, name: str) -> Model | None:
    """``model_named``, keeping the model from being deleted until the transaction ends."""
    if not is_alias_name(name):
        return hold_model(connection, tenant_id, name)
    row = connection.execute(_HOLD_NAMED, {"tenant": tenant_id, "name": name}).one_or_none()
    return None if row is None else read_model(row)
