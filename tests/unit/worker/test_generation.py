"""Placing rows, judging crashes, stopping: Generation over engine children that tests control."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from shared.db.models import Model
from shared.lifecycle import ReleaseReason, Watched
from shared.states import ShardState, StopReason
from tests.unit.worker.claims import CHAT, make_claim, make_rows
from tests.unit.worker.fake_pool import FakeChild, FakeCommits, FakePool
from worker import generation as generation_module
from worker.engines.protocol import Fatal
from worker.execution import ShardRun
from worker.generation import CANCEL_GRACE_SECONDS, DEFAULT_CAPACITY, Generation


class Bench:
    """A Generation with everything around it faked, time included."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool, self.commits = FakePool(), FakeCommits()
        self.models_down = False
        self.now = 1_000.0
        monkeypatch.setattr(generation_module.time, "monotonic", lambda: self.now)
        engines: Any = self.pool
        commits: Any = self.commits
        self.generation = Generation(
            engines, commits, self._model, idle_engine_seconds=60.0, load_engine_seconds=600.0
        )

    def _model(self, model_id: str) -> Model | None:
        if self.models_down:
            raise OperationalError("SELECT", {}, Exception("down"))
        if model_id == "gone":
            return None
        return Model(model_id, "text", "fake", "", [CHAT], {}, "us", 0)

    def batch(
        self, shard_id: int = 1, rows: int = 3, *, model: str = "m", **fields: Any
    ) -> ShardRun:
        claim = make_claim(shard_id, kind="batch", row_count=rows, **fields)
        return self._begin(ShardRun(claim, "w1", make_rows(rows, model=model)))

    def single(self, shard_id: int = 1, *, model: str = "m", **fields: Any) -> ShardRun:
        claim = make_claim(shard_id, model=model, **fields)
        return self._begin(ShardRun(claim, "w1", make_rows(1, model=model, batch=False)))

    def _begin(self, run: ShardRun) -> ShardRun:
        self.generation.begin(run)
        return run

    @property
    def child(self) -> FakeChild:
        return self.pool.child()

    @property
    def suspect_child(self) -> FakeChild:
        return self.pool.child(quarantine=True)

    def crash(self, *, quarantine: bool = False) -> None:
        self.pool.child(quarantine=quarantine).die()
        self.generation.receive()

    def ends(self) -> list[tuple[str, int, Any]]:
        return [(what, run.held.shard_id, reason) for what, run, reason, _ in self.commits.ends]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def error_codes(run: ShardRun) -> dict[str, str]:
    """Of rows without a response, by custom_id."""
    parsed = [json.loads(line) for line in run._errors]
    return {line["custom_id"]: line["error"]["code"] for line in parsed if line["error"]}


# --- the good way -----------------------------------------------------------------------------


def test_rows_go_to_the_engine_and_the_slice_is_committed_once(bench: Bench) -> None:
    run = bench.batch(rows=3)
    assert bench.child.submitted == [(1, 0), (1, 1), (1, 2)]
    bench.child.finish(run, 2, 0)
    bench.generation.receive()
    assert bench.generation.progress() == {run.held: (2, 0)}
    assert bench.ends() == []
    bench.child.finish(run, 1, status=400)
    bench.generation.receive()
    bench.generation.receive()
    assert bench.ends() == [("slice", 1, None)]
    assert bench.generation.progress() == {}
    assert not bench.generation.idle  # until it is committed
    bench.generation.closed(run.held)
    assert bench.generation.idle


def test_a_single_generation_is_committed_with_the_others(bench: Bench) -> None:
    run = bench.single()
    bench.child.finish(run, 0)
    bench.generation.receive()
    assert bench.ends() == [("generation", 1, None)]
    assert run.end_generation().state == ShardState.SUCCEEDED


def test_rows_of_several_models_go_to_several_children(bench: Bench) -> None:
    rows = make_rows(2) + [r for r in make_rows(4, model="n") if r.index >= 2]
    run = ShardRun(make_claim(1, kind="batch"), "w1", rows)
    bench.generation.begin(run)
    assert bench.pool.child("m").submitted == [(1, 0), (1, 1)]
    assert bench.pool.child("n").submitted == [(1, 2), (1, 3)]


def test_room_counts_what_is_read_what_runs_and_what_the_engines_want(bench: Bench) -> None:
    assert bench.generation.room() == DEFAULT_CAPACITY
    bench.generation.expect(make_claim(9, kind="batch", row_count=100), "w1")
    assert bench.generation.room() == DEFAULT_CAPACITY - 100
    begun = ShardRun(make_claim(9, kind="batch", row_count=100), "w1", make_rows(0))
    bench.generation.unreadable(begun, "not_found", "no file")
    bench.generation.closed(begun.held)
    run = bench.batch(rows=5)
    assert bench.generation.room() == 8 - 5
    bench.child.finish(run, 0, 1)
    bench.generation.receive()
    assert bench.generation.room() == 8 - 3
    bench.batch(2, rows=7)
    assert bench.generation.room() == 0


def test_a_model_that_is_gone_fails_its_rows(bench: Bench) -> None:
    run = bench.batch(rows=2, model="gone")
    assert bench.ends() == [("slice", 1, None)]
    assert error_codes(run) == {"row-0": "model_not_found", "row-1": "model_not_found"}
    assert bench.single(2, model="gone").end_generation().error_code == "model_not_found"


def test_a_slice_that_cannot_be_read_is_given_back(bench: Bench) -> None:
    claim = make_claim(1, kind="batch")
    bench.generation.expect(claim, "w1")
    bench.generation.unreadable(ShardRun(claim, "w1", []), "not_found", "no file")
    assert bench.ends() == [("release", 1, ReleaseReason.ERROR)]


# --- waiting for room -------------------------------------------------------------------------


def test_rows_wait_for_room_and_are_placed_when_there_is_some(bench: Bench) -> None:
    bench.pool.room = False
    run = bench.batch(rows=2)
    bench.generation.tend()
    assert not bench.pool.spawned
    bench.pool.room = True
    bench.generation.tend()
    assert bench.child.submitted == [(1, 0), (1, 1)]
    bench.generation.tend()
    assert len(bench.child.submitted) == 2
    assert not run.ending


def test_rows_wait_while_the_models_table_cannot_be_read(bench: Bench) -> None:
    bench.models_down = True
    bench.batch(rows=1)
    bench.generation.tend()
    bench.models_down = False
    bench.generation.tend()
    assert bench.child.submitted == [(1, 0)]


def test_rows_given_to_a_child_that_just_died_go_to_its_successor(bench: Bench) -> None:
    first = bench.batch(1, rows=1)
    bench.child.die()
    second = bench.batch(2, rows=1)  # the death is not known yet
    bench.generation.receive()
    bench.generation.tend()
    assert sorted(bench.child.submitted) == [(1, 0), (2, 0)]
    assert not first.ending
    assert not second.ending


# --- crashes ----------------------------------------------------------------------------------


def test_a_crash_in_company_is_an_accident_and_everyone_goes_again(bench: Bench) -> None:
    bench.batch(1, rows=2)
    bench.single(2)
    bench.crash()
    assert sorted(bench.child.submitted) == [(1, 0), (1, 1), (2, 0)]
    assert bench.ends() == []
    assert not bench.pool.has(quarantine=True)


def test_finished_rows_are_not_run_again_after_a_crash(bench: Bench) -> None:
    run = bench.batch(rows=3)
    bench.child.finish(run, 1)
    bench.generation.receive()
    bench.crash()
    assert bench.child.submitted == [(1, 0), (1, 2)]


def test_the_last_words_of_a_dying_child_count(bench: Bench) -> None:
    run = bench.batch(rows=2)
    bench.child.finish(run, 0)
    bench.child.die()
    bench.generation.receive()  # reads the result, then meets the end
    bench.generation.receive()
    assert run.completed == 1
    assert bench.child.submitted == [(1, 1)]


def test_the_second_crash_makes_suspects_that_run_alone_until_the_culprit_is_found(
    bench: Bench,
) -> None:
    run = bench.batch(rows=3)
    bench.crash()
    bench.crash()
    assert not bench.pool.has()
    tested: list[int] = []
    for _ in range(10):
        if not bench.pool.has(quarantine=True):
            break
        _, index = bench.suspect_child.submitted[-1]
        assert bench.suspect_child.rows_in_flight == {(1, 1): {index}}  # one row, alone
        tested.append(index)
        if index == 1:
            bench.crash(quarantine=True)
        else:
            bench.suspect_child.finish(run, index)
            bench.generation.receive()
        if run.ending:
            break
    assert tested.count(1) == 2
    assert run.ending
    assert error_codes(run) == {"row-1": "engine_crashed"}
    assert run.completed == 2
    assert bench.ends() == [("slice", 1, None)]
    assert len(bench.pool.spawned) <= 2 + 3  # two in company, few alone


def test_rows_in_bad_company_go_back_to_it_once_the_culprit_is_found(bench: Bench) -> None:
    culprit = bench.batch(1, rows=1)
    bystanders = bench.batch(2, rows=4)
    bench.crash()
    bench.crash()
    while not culprit.ending:
        (shard, index) = bench.suspect_child.submitted[-1]
        if shard == 1:
            bench.crash(quarantine=True)
        else:
            bench.suspect_child.finish(bystanders, index)
            bench.generation.receive()
    left = sorted(bystanders.unfinished)
    in_company = set(bench.child.submitted) if bench.pool.has() else set()
    in_test = set(bench.suspect_child.submitted[-1:]) if bench.pool.has(quarantine=True) else set()
    assert {(2, index) for index in left} <= in_company | in_test
    assert bystanders.failed == 0


def test_a_single_generation_that_crashes_alone_is_given_back_with_the_blame(bench: Bench) -> None:
    bench.single()
    bench.crash()
    bench.crash()
    bench.crash(quarantine=True)
    assert bench.ends() == [("release", 1, ReleaseReason.CRASHED)]
    assert bench.commits.ends[0][3] == "engine_crashed"


def test_a_claimed_suspect_runs_alone_from_the_start(bench: Bench) -> None:
    run = bench.batch(rows=2, suspect=True)
    assert not bench.pool.has()
    assert bench.suspect_child.submitted == [(1, 0)]
    bench.suspect_child.finish(run, 0)
    bench.generation.receive()
    assert bench.suspect_child.submitted == [(1, 0), (1, 1)]


def test_a_child_that_cannot_load_its_model_gives_its_shards_back(bench: Bench) -> None:
    bench.pool.loads_at_once = False
    bench.batch(1)
    bench.single(2)
    bench.child.die(1, Fatal("model_load_failed", "no weights"))
    bench.generation.receive()
    assert bench.ends() == [
        ("release", 1, ReleaseReason.ERROR), ("release", 2, ReleaseReason.ERROR),
    ]  # fmt: skip
    assert {code for *_, code in bench.commits.ends} == {"model_load_failed"}


# --- hangs ------------------------------------------------------------------------------------


def test_a_silent_child_with_work_is_killed_and_one_without_is_not(bench: Bench) -> None:
    bench.batch(rows=1)
    first = bench.child
    bench.now += 59
    bench.generation.tend()
    assert bench.child is first
    bench.now += 2
    bench.generation.tend()
    assert bench.child is not first
    assert bench.child.submitted == [(1, 0)]
    bench.child.rows_in_flight.clear()
    idle = bench.child
    bench.now += 10_000
    bench.generation.tend()
    assert bench.child is idle


def test_a_child_that_loads_has_more_time(bench: Bench) -> None:
    bench.pool.loads_at_once = False
    bench.batch(rows=1)
    loading = bench.child
    loading.last_heard = bench.now
    bench.now += 599
    bench.generation.tend()
    assert bench.child is loading
    bench.now += 2
    bench.generation.tend()
    assert bench.ends() == [("release", 1, ReleaseReason.ERROR)]


# --- stopping ---------------------------------------------------------------------------------


def watched(run: ShardRun, reason: StopReason | None = None) -> Watched:
    return Watched(run.held, reason)


def test_a_stopped_slice_ends_once_the_engine_has_let_go_of_it(bench: Bench) -> None:
    run = bench.batch(rows=2)
    bench.child.finish(run, 0)
    bench.generation.receive()
    for _ in range(2):
        bench.generation.obey([watched(run, StopReason.EXPIRED)])
    assert bench.child.cancelled == [(1, 1)]
    assert bench.ends() == []
    bench.child.confirm_cancel(run)
    bench.generation.receive()
    assert bench.ends() == [("slice", 1, None)]
    assert (run.cut_short, run.completed) == (True, 1)
    assert error_codes(run) == {"row-1": "batch_expired"}


def test_a_stopped_row_that_finishes_first_counts(bench: Bench) -> None:
    run = bench.single()
    bench.generation.obey([watched(run, StopReason.CANCELLED)])
    bench.child.finish(run, 0)
    bench.generation.receive()
    assert bench.ends() == [("generation", 1, None)]
    assert run.end_generation().state == ShardState.SUCCEEDED


def test_a_shard_that_waits_for_room_stops_at_once(bench: Bench) -> None:
    bench.pool.room = False
    run = bench.single()
    bench.generation.obey([watched(run, StopReason.CANCELLED)])
    assert bench.ends() == [("generation", 1, None)]
    assert run.end_generation().state == ShardState.CANCELLED
    bench.pool.room = True
    bench.generation.tend()
    assert not bench.pool.spawned


def test_a_shard_that_was_stopped_before_its_claim_never_runs(bench: Bench) -> None:
    run = bench.batch(rows=2, stop_reason=StopReason.CANCELLED)
    assert not bench.pool.spawned
    assert bench.ends() == [("slice", 1, None)]
    assert run.cut_short


def test_an_engine_that_ignores_a_cancel_is_killed_after_the_grace(bench: Bench) -> None:
    stopped, other = bench.batch(1, rows=1), bench.batch(2, rows=1)
    bench.generation.obey([watched(stopped, StopReason.CANCELLED), watched(other)])
    first = bench.child
    bench.child.last_heard = bench.now + CANCEL_GRACE_SECONDS
    bench.now += CANCEL_GRACE_SECONDS - 1
    bench.generation.tend()
    assert bench.child is first
    bench.now += 2
    bench.generation.tend()
    assert bench.ends() == [("slice", 1, None)]
    assert bench.child is not first
    assert bench.child.submitted == [(2, 0)]


def test_a_shard_that_was_taken_away_is_dropped_without_a_word(bench: Bench) -> None:
    lost, kept = bench.batch(1, rows=2), bench.batch(2, rows=1)
    bench.generation.obey([watched(kept)])
    assert bench.child.cancelled == [(1, 1)]
    bench.child.finish(lost, 0, 1)
    bench.child.finish(kept, 0)
    bench.generation.receive()
    assert bench.ends() == [("slice", 2, None)]
    bench.generation.closed(kept.held)
    assert bench.generation.idle


def test_leaving_gives_everything_back_without_blame(bench: Bench) -> None:
    bench.batch(1)
    ended = bench.single(2)
    bench.child.finish(ended, 0)
    bench.generation.receive()
    bench.generation.expect(make_claim(3, kind="batch"), "w1")
    bench.generation.preempt_all()
    assert bench.ends() == [
        ("generation", 2, None),
        ("release", 1, ReleaseReason.PREEMPTED),
        ("release", 3, ReleaseReason.PREEMPTED),
    ]
    assert list(bench.pool.children()) == []


def test_a_dead_session_drops_everything_and_commits_nothing(bench: Bench) -> None:
    bench.batch(1)
    bench.pool.room = False
    bench.batch(2, model="other")
    bench.generation.expect(make_claim(3, kind="batch"), "w1")
    bench.generation.abandon_all()
    assert bench.generation.idle
    assert bench.ends() == []
    assert list(bench.pool.children()) == []
    bench.pool.room = True
    bench.generation.tend()
    assert bench.ends() == []
    assert not bench.pool.has("other")
