"""The line of suspects."""

from __future__ import annotations

from tests.unit.worker.claims import answer, make_claim, make_rows
from worker.execution import ShardRun
from worker.quarantine import Quarantine, Suspect


def make_run(shard_id: int = 1, rows: int = 3, *, suspect: bool = False) -> ShardRun:
    claim = make_claim(shard_id, kind="batch", suspect=suspect)
    return ShardRun(claim, "w1", make_rows(rows))


def test_suspects_are_tested_one_at_a_time_in_order() -> None:
    run, line = make_run(), Quarantine()
    line.add(run, 0)
    line.add(run, 1)
    assert line.next() == Suspect(run, 0)
    assert line.next() is None  # it is still in the engine
    run.take(answer(run.claim, 0))
    assert line.next() == Suspect(run, 1)
    run.take(answer(run.claim, 1))
    assert line.next() is None
    assert line.current is None


def test_rows_that_ended_meanwhile_are_passed_over() -> None:
    run, ended, line = make_run(1), make_run(2), Quarantine()
    line.add(ended, 0)
    line.add(run, 0)
    line.add(run, 1)
    ended.ending = True
    run.take(answer(run.claim, 0))
    assert line.next() == Suspect(run, 1)


def test_a_test_that_could_not_begin_is_first_again() -> None:
    run, line = make_run(), Quarantine()
    line.add(run, 0)
    line.add(run, 1)
    line.next()
    line.put_back()
    assert line.next() == Suspect(run, 0)
    line.put_back()
    line.put_back()  # nothing is under test: nothing to put back
    assert line.next() == Suspect(run, 0)


def test_an_acquittal_frees_those_who_only_kept_bad_company() -> None:
    run, solo, line = make_run(1), make_run(2, suspect=True), Quarantine()
    for suspect in [(run, 0), (solo, 0), (run, 1), (run, 2)]:
        line.add(*suspect)
    run.take(answer(run.claim, 2))
    assert line.acquit_all() == [Suspect(run, 0), Suspect(run, 1)]
    assert line.next() == Suspect(solo, 0)  # suspected since an earlier worker: alone all the same
    assert line.acquit_all() == []


def test_a_suspect_names_its_model() -> None:
    assert Suspect(make_run(), 1).model == "m"
