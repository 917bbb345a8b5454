"""Rows that make files, tell their progress, or need inputs that have to wait; several pools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.lifecycle.working import Watched
from shared.states import StopReason
from tests.unit.worker.claims import answer, make_claim, make_rows
from tests.unit.worker.generation_bench import Bench, error_codes
from tests.unit.worker.media_files import made
from worker.engines.protocol import OutputFile, Progressing, RowProgress, RowsDone
from worker.execution import ShardRun
from worker.inputs import Gathered
from worker.placement import STARVING_SECONDS
from worker.room import FIRST_ROWS, OTHER_FIRST_ROWS
from worker.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    yield spool
    spool.close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, spool: Spool) -> Bench:
    return Bench(monkeypatch, spool)


def left(spool: Spool) -> list[Path]:
    return [path for path in spool.root.rglob("*") if path.is_file()]


def finish_with(bench: Bench, run: ShardRun, index: int, *files: OutputFile) -> None:
    result = answer(run.claim, index, files=list(files))
    bench.child._inbox.append(RowsDone([result]))
    bench.generation.receive()


# --- files ------------------------------------------------------------------------------------


def test_files_of_a_slice_are_stored_while_other_rows_run(bench: Bench, spool: Spool) -> None:
    run = bench.batch(rows=2)
    finish_with(bench, run, 0, made(bench.child.load.spool, "batch_1-1"))
    assert bench.commits.early == [run]
    assert bench.ends() == []
    finish_with(bench, run, 1)
    assert bench.ends() == [("slice", 1, None)]
    assert len(left(spool)) == 1
    bench.generation.closed(run.held)
    assert left(spool) == []


def test_a_file_of_another_engine_fails_its_row(bench: Bench, spool: Spool, tmp_path: Path) -> None:
    run = bench.batch(rows=1)
    finish_with(bench, run, 0, made(str(tmp_path), "batch_1-1"))
    assert bench.ends() == [("slice", 1, None)]
    assert error_codes(run) == {"row-0": "engine_error"}
    assert left(spool) == []


def test_files_that_come_too_late_are_removed(bench: Bench, spool: Spool) -> None:
    run = bench.batch(rows=1)
    bench.generation.obey([])  # taken away
    finish_with(bench, run, 0, made(bench.child.load.spool, "batch_1-1"))
    assert left(spool) == []
    assert bench.ends() == []


def test_a_step_goes_its_own_way(bench: Bench) -> None:
    run = bench.single(kind="batch", stage="step", step="picture 1")
    bench.child.finish(run, 0)
    bench.generation.receive()
    assert bench.ends() == [("step", 1, None)]
    assert bench.generation.progress() == {}


def test_rows_are_named_for_the_plant(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[str] = []
    bench.batch(rows=1)  # the child is there
    run = ShardRun(make_claim(2, kind="batch"), "w1", make_rows(2))
    monkeypatch.setattr(
        bench.child, "submit", lambda _s, _e, rows: submitted.extend(row.id for row in rows)
    )
    bench.generation.begin(run)
    assert submitted == ["batch_2-1", "batch_2-2"]


# --- progress ---------------------------------------------------------------------------------


def test_progress_of_single_rows_is_kept_for_the_watch(bench: Bench) -> None:
    single, batch = bench.single(1), bench.batch(2, rows=1)
    words = [RowProgress(run.held.shard_id, 1, 0, 1, 4) for run in (single, batch)]
    bench.child._inbox.append(Progressing([*words, RowProgress(99, 1, 0, 1, 4)]))
    bench.generation.receive()
    assert [step.held for step in bench.generation.reports.take()] == [single.held]
    bench.generation.closed(single.held)
    assert bench.generation.reports.take() == []


# --- inputs -----------------------------------------------------------------------------------


def waiting_run(bench: Bench, spool: Spool) -> tuple[ShardRun, list[ShardRun]]:
    """A run of three rows, for the last two of which there is no room yet."""
    asked: list[ShardRun] = []
    bench.generation.on_wants_inputs = asked.append
    rows = make_rows(3)
    run = ShardRun(make_claim(1, kind="batch", row_count=3), "w1", rows)
    paths = [spool.new_input()]
    paths[0].write_bytes(b"x")
    run.provide(Gathered(rows=rows[:1], later=rows[1:], paths=paths))
    bench.generation.begin(run)
    return run, asked


def test_rows_whose_inputs_had_no_room_come_when_the_others_are_done(
    bench: Bench, spool: Spool
) -> None:
    run, asked = waiting_run(bench, spool)
    assert bench.child.submitted == [(1, 0)]
    assert len(left(spool)) == 1
    bench.child.finish(run, 0)
    bench.generation.receive()
    assert asked == [run]
    assert left(spool) == []
    bench.generation.end_if_done(run)
    assert asked == [run]  # asked once
    bench.generation.provide(run, Gathered(rows=make_rows(3)[1:2], later=make_rows(3)[2:]))
    assert bench.child.submitted == [(1, 0), (1, 1)]
    refusal = answer(run.claim, 2, status=400)
    bench.child.finish(run, 1)
    bench.generation.receive()
    assert asked == [run, run]
    bench.generation.provide(run, Gathered(refused=[refusal]))
    assert bench.ends() == [("slice", 1, None)]
    assert (run.completed, run.failed) == (2, 1)


def test_inputs_stay_while_an_engine_may_read_them(bench: Bench, spool: Spool) -> None:
    run, _ = waiting_run(bench, spool)
    bench.generation.obey([])  # taken away; the engine hears of it in a while
    assert len(left(spool)) == 1
    bench.generation.tend()
    assert len(left(spool)) == 1
    bench.child.confirm_cancel(run)
    bench.generation.receive()
    bench.generation.tend()
    assert left(spool) == []


def test_inputs_for_a_run_that_was_stopped_meanwhile_are_removed(
    bench: Bench, spool: Spool
) -> None:
    run, _ = waiting_run(bench, spool)
    bench.child.finish(run, 0)
    bench.generation.receive()
    bench.generation.obey([Watched(run.held, StopReason.CANCELLED)])
    assert bench.ends() == [("slice", 1, None)]
    late = spool.new_input()
    late.write_bytes(b"x")
    bench.generation.provide(run, Gathered(rows=make_rows(3)[1:], paths=[late]))
    assert left(spool) == []
    assert bench.child.submitted == [(1, 0)]


def test_a_run_whose_rows_are_all_refused_ends_without_an_engine(bench: Bench) -> None:
    run = ShardRun(make_claim(1, kind="batch"), "w1", make_rows(1))
    run.provide(Gathered(refused=[answer(run.claim, 0, status=400)]))
    bench.generation.begin(run)
    assert bench.ends() == [("slice", 1, None)]
    assert not bench.pool.has()


def test_inputs_that_cannot_be_read_give_the_whole_shard_back(bench: Bench, spool: Spool) -> None:
    run, _ = waiting_run(bench, spool)
    bench.child.finish(run, 0)
    bench.generation.receive()
    bench.generation.unreadable(run, "storage_unavailable", "no answer")
    assert [what for what, *_ in bench.ends()] == ["release"]
    bench.generation.closed(run.held)
    bench.generation.unreadable(run, "storage_unavailable", "no answer")
    assert bench.generation.idle


# --- pools ------------------------------------------------------------------------------------


def test_each_pool_has_its_own_room(bench: Bench) -> None:
    assert bench.generation.room("image") == OTHER_FIRST_ROWS
    bench.generation.expect(make_claim(1, kind="batch", row_count=500), "w1")
    assert bench.generation.room("text") == 0
    assert bench.generation.room("image") == OTHER_FIRST_ROWS
    bench.generation.expect(make_claim(2, pool="image", endpoint="/v1/images/edits"), "w1")
    assert bench.generation.room("image") == OTHER_FIRST_ROWS - 1


def test_while_a_model_starves_for_memory_nobody_gets_more(bench: Bench) -> None:
    bench.pool.room = False
    run = bench.single(pool="image", model="large")
    bench.now += STARVING_SECONDS
    assert bench.generation.room("text") == FIRST_ROWS["text"]
    bench.now += 1
    assert bench.generation.room("text") == bench.generation.room("image") == 0
    bench.pool.room = True
    bench.generation.tend()
    assert bench.pool.child("large").submitted == [(1, 0)]
    assert bench.generation.room("text") > 0
    assert not run.ending


def test_a_starving_model_that_nobody_wants_any_more_holds_nothing_up(bench: Bench) -> None:
    bench.pool.room = False
    run = bench.single(pool="image", model="large")
    bench.now += STARVING_SECONDS + 1
    assert bench.generation.room("text") == 0
    bench.generation.obey([Watched(run.held, StopReason.CANCELLED)])
    bench.generation.tend()
    assert bench.generation.room("text") == FIRST_ROWS["text"]
