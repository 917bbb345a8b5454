"""The state machines: what the table says, and that the guards say the same."""

from __future__ import annotations

import re

import pytest

from shared.lifecycle import fence
from shared.states import (
    OPEN_JOB,
    OPEN_SHARD,
    TRANSITIONS,
    JobState,
    ShardState,
    State,
    StopReason,
    guard,
    is_terminal,
    open_states,
    sources,
    sql_list,
)

KINDS = [JobState, ShardState]
STATES = [*JobState, *ShardState]


def quoted(condition: str) -> set[str]:
    return set(re.findall(r"'([a-z]+)'", condition))


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_covers_every_state_and_stays_within_its_machine(kind: type[JobState]) -> None:
    assert set(TRANSITIONS[kind]) == set(kind)
    for source, targets in TRANSITIONS[kind].items():
        assert all(type(target) is kind for target in targets)
        assert source not in targets


@pytest.mark.parametrize("state", STATES, ids=repr)
def test_a_guard_lets_through_exactly_what_the_table_lists(state: JobState | ShardState) -> None:
    machine = TRANSITIONS[type(state)]
    allowed = {source for source, targets in machine.items() if state in targets}
    assert set(sources(state)) == allowed
    condition = guard("x.state", state)
    assert condition.startswith("x.state IN (")
    assert quoted(condition) == {str(source) for source in allowed}
    assert not any(is_terminal(source) for source in allowed)


def test_terminal_states_are_these() -> None:
    assert {state for state in JobState if is_terminal(state)} == {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.EXPIRED,
    }
    assert {state for state in ShardState if is_terminal(state)} == {
        ShardState.SUCCEEDED,
        ShardState.FAILED,
        ShardState.CANCELLED,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_is_reachable_and_leads_to_an_end(kind: type[JobState]) -> None:
    reached: set[State] = {kind.QUEUED}
    edge: list[State] = [kind.QUEUED]
    while edge:
        for target in TRANSITIONS[kind][edge.pop()]:
            if target not in reached:
                reached.add(target)
                edge.append(target)
    assert reached == set(kind)
    for state in open_states(kind):
        assert any(is_terminal(target) for target in TRANSITIONS[kind][state])


def test_a_retry_goes_back_but_never_out_of_a_terminal_state() -> None:
    assert JobState.QUEUED in TRANSITIONS[JobState][JobState.RUNNING]
    assert ShardState.READY in TRANSITIONS[ShardState][ShardState.RUNNING]
    assert ShardState.RUNNING not in TRANSITIONS[ShardState][ShardState.QUEUED]


def test_open_lists_are_the_non_terminal_states() -> None:
    assert quoted(OPEN_JOB) == {"queued", "running"}
    assert quoted(OPEN_SHARD) == {"queued", "ready", "running"}
    assert sql_list([JobState.FAILED]) == "'failed'"


def test_the_fence_admits_only_the_running_attempt() -> None:
    for condition in (fence.FENCE, fence.FENCE_MANY):
        assert "s.epoch = " in condition
        assert "s.session_id = :me" in condition
        assert quoted(condition) == {"running"}


def test_everything_that_ends_running_work_has_one_guard() -> None:
    """One fence serves success, failure, cancellation and release, so their sources must agree."""
    for state in (ShardState.SUCCEEDED, ShardState.FAILED):
        assert sources(state) == [ShardState.RUNNING]
    assert ShardState.RUNNING in sources(ShardState.CANCELLED)
    assert ShardState.RUNNING in sources(ShardState.READY)


def test_stop_reasons_are_job_states() -> None:
    assert all(JobState(reason) in TRANSITIONS[JobState][JobState.RUNNING] for reason in StopReason)
