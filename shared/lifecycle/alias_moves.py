"""How an alias changes hands, whoever asks for it: its row held, its history written.

Whoever moves an alias holds its row first and the model that it moves to then, so that moves take
turns, and a model is either seen to be needed or seen to be gone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.db.models import hold_model
from shared.errors import Conflict, ModelNotFound, NotFound


class Cause(StrEnum):
    """Who moved an alias."""

    HAND = "hand"
    GATE = "gate"
    ROLLBACK = "rollback"


class Outcome(StrEnum):
    """What came of an attempt to move an alias."""

    MOVED = "moved"
    KEPT = "kept"
    """The candidate is not better by enough."""
    SUPERSEDED = "superseded"
    """Another model holds the alias than the one that was measured."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Who must hold the alias for it to be moved; None: nobody."""

    model: str | None


class Standing(NamedTuple):
    """An alias whose row is held."""

    id: str
    name: str
    model: str | None
    version: int
    standing: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the history that is to be written."""

    to_model: str
    cause: Cause
    outcome: Outcome = Outcome.MOVED
    back_to: int | None = None
    job_id: str | None = None
    evaluation: dict[str, Any] | None = None


_HOLD = text("""
SELECT id, name, model, version, standing FROM model_aliases
 WHERE tenant_id = :tenant AND name = :name FOR UPDATE
""")

_MOVE = text("""
UPDATE model_aliases SET model = :model, version = :version, standing = :standing,
       moved_at = clock_timestamp()
 WHERE id = :id
""")

_ADD = text("""
INSERT INTO model_alias_moves (alias_id, tenant_id, version, from_model, to_model, cause, outcome,
                               back_to, job_id, evaluation)
VALUES (:id, :tenant, :version, :from, :to, :cause, :outcome, :back_to, :job,
        CAST(:evaluation AS json))
""")


def hold_alias(
    connection: Connection, tenant_id: str, name: str, expected: Expected | None = None
) -> Standing:
    """The alias, which stays as it is until the transaction ends, for everybody else. Raises
    NotFound, or Conflict when another than ``expected`` holds it."""
    row = connection.execute(_HOLD, {"tenant": tenant_id, "name": name}).one_or_none()
    if row is None:
        raise NotFound("there is no such alias")
    if expected is not None and expected.model != row.model:
        holder = "no model" if row.model is None else repr(row.model)
        raise Conflict(f"the alias was moved: {holder} holds it", param="expected_model")
    return Standing._make(row)


def require_model(connection: Connection, tenant_id: str, model: str) -> None:
    """Raises ModelNotFound; otherwise the model stays until the transaction ends."""
    known = model.isprintable()
    if not known or hold_model(connection, tenant_id, model) is None:
        raise ModelNotFound("there is no such model", param="model")


def write_move(connection: Connection, tenant_id: str, alias: Standing, entry: Entry) -> int:
    """Moves the held alias, and writes it into the history. Gives the new version's number."""
    version = alias.version + 1
    rolled_back = entry.cause == Cause.ROLLBACK
    standing = entry.back_to if rolled_back else version
    values = {"id": alias.id, "model": entry.to_model, "version": version, "standing": standing}
    connection.execute(_MOVE, values)
    back_to = entry.back_to if rolled_back else alias.standing
    _write(connection, tenant_id, alias, entry, version=version, back_to=back_to)
    return version


def write_refusal(connection: Connection, tenant_id: str, alias: Standing, entry: Entry) -> None:
    """Writes into the history that the alias stayed where it is."""
    _write(connection, tenant_id, alias, entry, version=None, back_to=None)


def _write(
    connection: Connection,
    tenant_id: str,
    alias: Standing,
    entry: Entry,
    *,
    version: int | None,
    back_to: int | None,
) -> None:
    connection.execute(
        _ADD,
        {
            "id": alias.id,
            "tenant": tenant_id,
            "version": version,
            "from": alias.model,
            "to": entry.to_model,
            "cause": entry.cause,
            "outcome": entry.outcome,
            "back_to": back_to,
            "job": entry.job_id,
            "evaluation": None if entry.evaluation is None else json.dumps(entry.evaluation),
        },
    )
