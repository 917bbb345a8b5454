"""The whole state machine: every state, every legal transition, and the SQL guards made of them.

Pure: no I/O. Only ``shared.lifecycle`` changes a state, and each of its statements carries a guard
built here, so that a transition which this table does not list cannot happen.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """What a tenant sees of a job."""

    QUEUED = "queued"
    """Accepted and committed; no worker has it (or has it back after a retry)."""
    RUNNING = "running"
    """At least one of its shards was claimed; a batch stays here between its stages."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Its deadline passed first; finished rows are kept."""


class ShardState(StrEnum):
    """Where one unit of dispatch stands."""

    QUEUED = "queued"
    """Waits outside its tenant's window; with ``blocked_n`` above zero, for other shards."""
    READY = "ready"
    """Inside the window: any worker of its pool may claim it."""
    RUNNING = "running"
    """Held by ``(session_id, epoch)``; nobody else's write is accepted."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Dead-lettered: a budget ran out. The reason is on the shard."""
    CANCELLED = "cancelled"
    """Stopped on request or at the deadline; finished rows may have been kept."""


class Stage(StrEnum):
    """What a shard does for its job. A single generation has ``generate`` alone."""

    VALIDATE = "validate"
    """Read a batch's input once and cut it into ``generate`` shards; or a fine-tuning's data, and
    open its ``train`` shard."""
    GENERATE = "generate"
    STEP = "step"
    """One node of a graph: its result is what later steps are made of."""
    TRAIN = "train"
    """Run a recipe: a training that survives its process by checkpoints."""
    SWEEP = "sweep"
    """Search for hyperparameters: waits for trials, which are jobs of their own."""
    PRODUCE = "produce"
    """Turn a template and a table into copy: waits for batches, which are jobs of their own."""
    ASSEMBLE = "assemble"
    """Stream the shards' outputs into the batch's files."""


class StopReason(StrEnum):
    """Why running work was asked to stop."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"


State = JobState | ShardState

_J, _S = JobState, ShardState

# A table for each machine: members of two StrEnums with the same text are equal.
TRANSITIONS: dict[type[State], dict[State, frozenset[State]]] = {
    JobState: {
        _J.QUEUED: frozenset({_J.RUNNING, _J.FAILED, _J.CANCELLED, _J.EXPIRED}),
        _J.RUNNING: frozenset({_J.QUEUED, _J.SUCCEEDED, _J.FAILED, _J.CANCELLED, _J.EXPIRED}),
        _J.SUCCEEDED: frozenset(),
        _J.FAILED: frozenset(),
        _J.CANCELLED: frozenset(),
        _J.EXPIRED: frozenset(),
    },
    ShardState: {
        _S.QUEUED: frozenset({_S.READY, _S.CANCELLED}),
        # Back to the queue: a training whose job was paused.
        _S.READY: frozenset({_S.QUEUED, _S.RUNNING, _S.CANCELLED}),
        # Back to the queue: a slice whose rows are graphs waits there for their steps, a sweep for
        # its trials, a production for its batch.
        _S.RUNNING: frozenset({_S.QUEUED, _S.READY, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
        _S.SUCCEEDED: frozenset(),
        _S.FAILED: frozenset(),
        _S.CANCELLED: frozenset(),
    },
}
"""From each state, where a job or a shard may go."""


def is_terminal(state: State) -> bool:
    return not TRANSITIONS[type(state)][state]


def sources(target: State) -> list[State]:
    """The states from which ``target`` may be entered, in declaration order."""
    machine = TRANSITIONS[type(target)]
    return [state for state, targets in machine.items() if target in targets]


def guard(column: str, target: State) -> str:
    """A SQL condition that holds exactly where ``column`` may change to ``target``."""
    allowed = ", ".join(f"'{state}'" for state in sources(target))
    return f"{column} IN ({allowed})"


def open_states(kind: type[State]) -> list[State]:
    """The non-terminal states of ``JobState`` or ``ShardState``."""
    return [state for state, targets in TRANSITIONS[kind].items() if targets]


def sql_list(states: list[State]) -> str:
    """``'queued', 'running'`` for use inside ``IN (…)``; the values are this module's constants."""
    return ", ".join(f"'{state}'" for state in states)


OPEN_JOB = sql_list(open_states(JobState))
OPEN_SHARD = sql_list(open_states(ShardState))
