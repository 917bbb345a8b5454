"""Reading a step: its body, completed with what the steps before it made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine

from shared import plans
from shared.db.session import autocommit
from shared.db.steps import results_of, step_of
from shared.lifecycle.working import Claim
from shared.specs import parse_body
from worker.rows import RowInput

Complete = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


def read_step(database: Engine, claim: Claim, complete: Complete = plans.complete) -> RowInput:
    """The one row of a claimed step, for an engine.

    Raises SQLAlchemyError when the database can't be asked; PlanError or InvalidRequest (both
    PressrunErrors) when what the earlier steps made does not fit the body: that is for good.
    """
    with autocommit(database) as connection:
        step = step_of(connection, claim.shard_id)
        results = results_of(connection, step.job_id, step.line, step.needs)
    body = complete(step.body, results)
    spec = parse_body(step.endpoint, body)
    return RowInput(
        index=0,
        line=step.line,
        custom_id=None,
        endpoint=step.endpoint,
        model=step.model or spec.model,
        body=json.dumps(body, separators=(",", ":")).encode(),
        id=f"{claim.job_id}-{step.line}-{step.name}",
    )
