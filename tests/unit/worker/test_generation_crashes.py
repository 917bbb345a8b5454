"""What a child that crashes or hangs means for the rows that were in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.lifecycle.working import ReleaseReason
from tests.unit.worker.generation_bench import Bench, error_codes
from worker.engines.protocol import Fatal
from worker.spool import Spool


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    spool = Spool(tmp_path)
    yield Bench(monkeypatch, spool)
    spool.close()


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


def test_a_full_disk_blames_no_row(bench: Bench) -> None:
    bench.batch(1)
    bench.single(2)
    bench.child.die(1, Fatal("disk_full", "no room left"))
    bench.generation.receive()
    assert bench.ends() == [
        ("release", 1, ReleaseReason.ERROR), ("release", 2, ReleaseReason.ERROR),
    ]  # fmt: skip
    assert {code for *_, code in bench.commits.ends} == {"disk_full"}


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
