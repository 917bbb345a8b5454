"""Placing rows, taking results, stopping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.lifecycle.working import ReleaseReason, Watched
from shared.states import ShardState, StopReason
from tests.unit.worker.claims import make_claim, make_rows
from tests.unit.worker.generation_bench import Bench, error_codes
from worker.execution import ShardRun
from worker.room import FIRST_ROWS
from worker.spool import Spool
from worker.stopping import CANCEL_GRACE_SECONDS


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    spool = Spool(tmp_path)
    yield Bench(monkeypatch, spool)
    spool.close()


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
    assert bench.generation.room("text") == FIRST_ROWS["text"]
    bench.generation.expect(make_claim(9, kind="batch", row_count=100), "w1")
    assert bench.generation.room("text") == FIRST_ROWS["text"] - 100
    begun = ShardRun(make_claim(9, kind="batch", row_count=100), "w1", make_rows(0))
    bench.generation.unreadable(begun, "not_found", "no file")
    bench.generation.closed(begun.held)
    run = bench.batch(rows=5)
    assert bench.generation.room("text") == 8 - 5
    bench.child.finish(run, 0, 1)
    bench.generation.receive()
    assert bench.generation.room("text") == 8 - 3
    bench.batch(2, rows=7)
    assert bench.generation.room("text") == 0


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
