"""Gates: an alias moves to a candidate once an evaluation has found it better than the holder.

A gate is a part of the evaluation's job (``detail["gate"]``). It is written when the job is
submitted and completed with what came of it, by the transaction that ends the job.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.db.models import hold_model
from shared.errors import InvalidRequest
from shared.lifecycle.alias_moves import (
    Cause,
    Entry,
    Expected,
    Outcome,
    Standing,
    hold_alias,
    require_model,
    write_move,
    write_refusal,
)

DECIDED = "evaluation.gate"
"""The event that tells what came of a gate."""

BETTER, NOT_BETTER, NOT_MEASURED = "better", "not_better", "not_measured"
HOLDER_CHANGED, CANDIDATE_GONE, ALIAS_GONE = "holder_changed", "candidate_gone", "alias_gone"

_HOLD_BY_ID = text("""
SELECT id, name, model, version, standing FROM model_aliases
 WHERE id = :id AND tenant_id = :tenant FOR UPDATE
""")

_REMEMBER_GATE = text("UPDATE model_aliases SET gate_job_id = :job WHERE id = :id")

_TELL = text("""
WITH job AS (
    UPDATE jobs SET detail = CAST(:detail AS json), version = version + 1
     WHERE id = :job AND tenant_id = :tenant RETURNING id, tenant_id)
INSERT INTO events (tenant_id, job_id, type, data)
SELECT tenant_id, id, :type, CAST(:told AS json) FROM job
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What an alias waits for."""

    alias_id: str
    """An alias that is deleted and made again is another one."""
    alias: str
    candidate: str
    holder: str | None
    """Who held the alias when the evaluation was asked for; None: nobody."""
    compared: bool
    """Whether the holder is measured too: one that its operator has withdrawn can't be."""
    metric: str
    min_improvement: float

    @property
    def models(self) -> list[str]:
        """What has to be measured."""
        holder = [self.holder] if self.holder is not None and self.compared else []
        return [self.candidate, *holder]

    def as_detail(self) -> dict[str, Any]:
        """As ``detail["gate"]`` of the evaluation's job."""
        names = self.__slots__
        return {name: getattr(self, name) for name in names}

    @classmethod
    def of(cls, detail: Mapping[str, Any]) -> Gate:
        """From the detail of the evaluation's job."""
        gate = detail["gate"]
        return cls(**{name: gate[name] for name in cls.__slots__})


class Verdict(NamedTuple):
    """What a gate decides, and why."""

    outcome: Outcome
    reason: str

    def without_candidate(self) -> Verdict:
        """The same when the candidate is not there any more: it gets nothing."""
        return Verdict(Outcome.KEPT, CANDIDATE_GONE) if self.outcome == Outcome.MOVED else self


def judge(gate: Gate, holder: str | None, values: Mapping[str, float], *, goes_up: bool) -> Verdict:
    """Whether the candidate takes the alias from ``holder``, who holds it now. ``values`` are the
    metric of each model that has one."""
    if holder != gate.holder:
        return Verdict(Outcome.SUPERSEDED, HOLDER_CHANGED)
    found = _finite(values.get(gate.candidate))
    if found is None:
        return Verdict(Outcome.KEPT, NOT_MEASURED)
    if gate.holder is None or not gate.compared:
        return Verdict(Outcome.MOVED, BETTER)
    before = _finite(values.get(gate.holder))
    if before is None:
        return Verdict(Outcome.KEPT, NOT_MEASURED)
    improvement = found - before if goes_up else before - found
    if improvement > gate.min_improvement:
        return Verdict(Outcome.MOVED, BETTER)
    return Verdict(Outcome.KEPT, NOT_BETTER)


def begin_gate(
    connection: Connection,
    *,
    tenant_id: str,
    name: str,
    candidate: str,
    job_id: str,
    metric: str,
    min_improvement: float,
    expected: Expected | None = None,
) -> Gate:
    """The gate of the evaluation ``job_id`` that the caller submits in the same transaction; both
    models stay until it ends. It is remembered as the alias' newest.

    Raises NotFound for the alias, ModelNotFound, InvalidRequest for a candidate that holds the
    alias already, and Conflict when another than ``expected`` does.
    """
    alias = hold_alias(connection, tenant_id, name, expected)
    require_model(connection, tenant_id, candidate)
    if alias.model == candidate:
        raise InvalidRequest("this model holds the alias already", param="model")
    holder = alias.model
    compared = holder is not None and hold_model(connection, tenant_id, holder) is not None
    connection.execute(_REMEMBER_GATE, {"id": alias.id, "job": job_id})
    return Gate(
        alias_id=alias.id,
        alias=name,
        candidate=candidate,
        holder=holder,
        compared=compared,
        metric=metric,
        min_improvement=min_improvement,
    )


def decide_gate(
    connection: Connection,
    *,
    tenant_id: str,
    job_id: str,
    detail: dict[str, Any],
    values: Mapping[str, float],
    direction: str,
) -> Outcome:
    """Moves the alias if the candidate is better than its holder by more than the gate asks for.
    ``detail`` is that of the evaluation's job, ``values`` the gate's metric by model, ``direction``
    ``max`` where more is better.

    For the transaction that ends the job. What came of it is written into the alias' history, the
    job's ``detail["gate"]`` and an event of the job.
    """
    gate = Gate.of(detail)
    where = {"id": gate.alias_id, "tenant": tenant_id}
    row = connection.execute(_HOLD_BY_ID, where).one_or_none()
    found = {
        "candidate_value": _finite(values.get(gate.candidate)),
        "holder_value": None if gate.holder is None else _finite(values.get(gate.holder)),
        "direction": direction,
    }
    verdict = Verdict(Outcome.SUPERSEDED, ALIAS_GONE)
    if row is not None:
        alias = Standing._make(row)
        verdict = judge(gate, alias.model, values, goes_up=direction == "max")
        if hold_model(connection, tenant_id, gate.candidate) is None:
            verdict = verdict.without_candidate()
        write = write_move if verdict.outcome == Outcome.MOVED else write_refusal
        write(connection, tenant_id, alias, _entry(gate, job_id, verdict, found))
    decided = {"outcome": verdict.outcome, "reason": verdict.reason, **found}
    told = {"alias": gate.alias, "candidate": gate.candidate, "holder": gate.holder, **decided}
    new = {"gate": gate.as_detail() | decided}
    which = {"job": job_id, "tenant": tenant_id, "type": DECIDED}
    texts = {"detail": json.dumps(detail | new), "told": json.dumps(told)}
    connection.execute(_TELL, which | texts)
    return verdict.outcome


def _finite(value: float | None) -> float | None:
    """JSON knows no other numbers."""
    return value if value is not None and math.isfinite(value) else None


def _entry(gate: Gate, job_id: str, verdict: Verdict, found: dict[str, Any]) -> Entry:
    asked = {"metric": gate.metric, "min_improvement": gate.min_improvement}
    return Entry(
        to_model=gate.candidate,
        cause=Cause.GATE,
        outcome=verdict.outcome,
        job_id=job_id,
        evaluation={**asked, **found, "holder": gate.holder, "reason": verdict.reason},
    )
