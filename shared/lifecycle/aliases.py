"""Aliases: made, moved by hand, rolled back, deleted; ``alias_gates`` moves those with a gate."""

from __future__ import annotations

from sqlalchemy import Connection, text

from shared.db.aliases import get_alias
from shared.db.models import hold_model
from shared.errors import Conflict
from shared.ids import new_alias_id
from shared.lifecycle.alias_gates import Gate, begin_gate, decide_gate
from shared.lifecycle.alias_moves import (
    Cause,
    Entry,
    Expected,
    hold_alias,
    require_model,
    write_move,
)

__all__ = [
    "MOST_ALIASES",
    "Expected",
    "Gate",
    "begin_gate",
    "create_alias",
    "decide_gate",
    "delete_alias",
    "move_alias",
    "rollback_alias",
]

MOST_ALIASES = 1_000
"""Of a tenant: they are all listed beside the models, and read for every batch."""

MOST_STEPS_BACK = 1_000
"""How far a rollback looks for a model that is still there."""

_CREATE = text("""
INSERT INTO model_aliases (id, tenant_id, name)
SELECT :id, :tenant, :name
 WHERE (SELECT count(*) FROM model_aliases WHERE tenant_id = :tenant) < :most
    ON CONFLICT (tenant_id, name) DO NOTHING RETURNING id
""")

_IS_MODEL = text("""
SELECT 1 FROM models
 WHERE id = :name AND deleted_at IS NULL AND (tenant_id IS NULL OR tenant_id = :tenant)
""")

# From where the alias stands, step by step back along what was there before.
_BEFORE = text("""
WITH RECURSIVE back (version, model, back_to, steps) AS (
    SELECT b.version, b.to_model, b.back_to, 1
      FROM model_alias_moves s JOIN model_alias_moves b
        ON b.alias_id = s.alias_id AND b.version = s.back_to
     WHERE s.alias_id = :id AND s.version = :standing
     UNION ALL
    SELECT b.version, b.to_model, b.back_to, back.steps + 1
      FROM back JOIN model_alias_moves b ON b.alias_id = :id AND b.version = back.back_to
     WHERE back.steps < :most
)
SELECT back.version, back.model FROM back JOIN models m ON m.id = back.model
 WHERE m.deleted_at IS NULL AND (m.tenant_id IS NULL OR m.tenant_id = :tenant)
   AND back.model <> :model
 ORDER BY back.version DESC LIMIT 1
""")

_DELETE = text("DELETE FROM model_aliases WHERE tenant_id = :tenant AND name = :name")


def create_alias(connection: Connection, *, tenant_id: str, name: str, model: str | None) -> None:
    """Makes an alias, held by ``model`` or by nobody yet. ``name`` has the shape of one.

    Raises Conflict when there is a model or an alias of that name, or ``MOST_ALIASES``; and
    ModelNotFound.
    """
    if connection.execute(_IS_MODEL, {"tenant": tenant_id, "name": name}).scalar():
        raise Conflict("there is a model of that name", param="name")
    values = {"id": new_alias_id(), "tenant": tenant_id, "name": name, "most": MOST_ALIASES}
    if connection.execute(_CREATE, values).scalar() is None:
        if get_alias(connection, tenant_id, name) is not None:
            raise Conflict("there is an alias of that name", param="name")
        raise Conflict(f"a tenant has at most {MOST_ALIASES} aliases", param="name")
    if model is not None:
        move_alias(connection, tenant_id=tenant_id, name=name, model=model)


def move_alias(
    connection: Connection,
    *,
    tenant_id: str,
    name: str,
    model: str,
    expected: Expected | None = None,
) -> bool:
    """Lets ``model`` hold the alias from now on; False when it does already.

    Raises NotFound for the alias, ModelNotFound, and Conflict when another than ``expected`` holds
    the alias.
    """
    alias = hold_alias(connection, tenant_id, name, expected)
    require_model(connection, tenant_id, model)
    if alias.model == model:
        return False
    write_move(connection, tenant_id, alias, Entry(to_model=model, cause=Cause.HAND))
    return True


def rollback_alias(
    connection: Connection, *, tenant_id: str, name: str, expected: Expected | None = None
) -> None:
    """Gives the alias back to the model that held it before; again: to the one before that. Models
    that are gone by now are passed over.

    Raises NotFound, and Conflict when there is none or another than ``expected`` holds the alias.
    """
    alias = hold_alias(connection, tenant_id, name, expected)
    where = {
        "id": alias.id,
        "tenant": tenant_id,
        "standing": alias.standing,
        "model": alias.model,
        "most": MOST_STEPS_BACK,
    }
    before = connection.execute(_BEFORE, where).one_or_none()
    if before is None:
        raise Conflict("no model that is still there held this alias before")
    if hold_model(connection, tenant_id, before.model) is None:
        raise Conflict(f"{before.model!r}, which held this alias before, is just being deleted")
    entry = Entry(to_model=before.model, cause=Cause.ROLLBACK, back_to=before.version)
    write_move(connection, tenant_id, alias, entry)


def delete_alias(connection: Connection, *, tenant_id: str, name: str) -> bool:
    """Forgets the alias and its history; False when there is none. Jobs keep the model that it
    stood for when they were submitted."""
    return connection.execute(_DELETE, {"tenant": tenant_id, "name": name}).rowcount == 1
