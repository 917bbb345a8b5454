"""Rows of a batch that are graphs: unfolded into steps, and collected into lines when those are
done. The slice itself is claimed twice, and tells by its steps which of the two it is at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shared.db.models import Model
from shared.db.steps import GraphOutcome
from shared.errors import PressrunError
from shared.lifecycle.graphs import failure
from shared.lifecycle.steps import PLAN
from shared.lifecycle.working import Claim, Graph, SliceEnd
from shared.plans import Offers, Step, plan
from shared.specs import InferenceSpec, parse_body_json
from shared.states import ShardState
from shared.storage.base import Store
from worker.outputs import RowError, error_line, response_line, stopped_error, store_lines
from worker.rows import RowInput
from worker.upkeep.assembly import Interrupted
from worker.upkeep.offers import Names

Planner = Callable[[str, InferenceSpec, Offers, str], Sequence[Step]]
"""(endpoint, spec, offers, row id) → steps."""


def plan_row(endpoint: str, spec: InferenceSpec, offers: Offers, row: str) -> Sequence[Step]:
    """The steps of a row. Raises PressrunErrors for what can't be planned."""
    return plan(endpoint, spec, offers, row=row)


def unfold(
    claim: Claim,
    rows: Sequence[RowInput],
    models: Mapping[str, Model],
    interrupted: Callable[[], bool],
    planner: Planner = plan_row,
) -> list[Graph]:
    """A graph for each row; one without steps for a row that can't be planned (any more).

    Raises Interrupted.
    """
    offers = Names(models, claim.models())
    graphs = []
    for row in rows:
        if interrupted():
            raise Interrupted
        steps: Sequence[Step] = ()
        code = message = None
        try:
            spec = parse_body_json(row.endpoint, row.body)
            steps = planner(row.endpoint, spec, offers, f"{claim.job_id}-{row.line}")
        except PressrunError as error:
            code, message = error.code, error.message
        graphs.append(Graph(row.line, row.endpoint, steps, code, message))
    return graphs


def collect(
    store: Store,
    claim: Claim,
    rows: Sequence[RowInput],
    outcomes: Mapping[int, GraphOutcome],
) -> SliceEnd:
    """Stores a line for every row of a slice whose graphs have ended. Usage is counted with the
    steps. Raises StorageUnavailable or StorageFull."""
    output: list[bytes] = []
    errors: list[bytes] = []
    stopped = False
    for row in rows:
        outcome = outcomes[row.line]
        if outcome.result is not None:
            body = outcome.result.encode()
            output.append(response_line(claim.job_id, row, 200, body))
            continue
        stopped = stopped or outcome.state == ShardState.CANCELLED
        error = _why(claim, outcome)
        errors.append(error_line(claim.job_id, row.line, row.custom_id, error))
    return SliceEnd(
        claim.held,
        ShardState.CANCELLED if stopped else ShardState.SUCCEEDED,
        store_lines(store, claim, "output.jsonl", output),
        store_lines(store, claim, "errors.jsonl", errors),
        len(output),
        len(errors),
        [],
    )


def _why(claim: Claim, outcome: GraphOutcome) -> RowError:
    if outcome.state == ShardState.CANCELLED:
        return stopped_error(claim.stop_reason)
    if outcome.step == PLAN:
        return RowError(outcome.error_code or "invalid_request", outcome.error_message or "")
    return RowError("step_failed", failure(outcome.step, outcome.error_message))
