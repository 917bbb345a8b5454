"""What rows say, on its way to the database: numbered, in order, and only where it is wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.lifecycle.working import NewDelta
from tests.unit.worker.claims import make_claim, make_rows
from tests.unit.worker.generation_bench import Bench
from worker import streaming
from worker.engines.protocol import Piece, RowDelta, Speaking
from worker.execution import ShardRun
from worker.spool import Spool
from worker.streaming import Streams


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(streaming, "time", made)
    return made


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    spool = Spool(tmp_path)
    yield Bench(monkeypatch, spool)
    spool.close()


def run_of(shard: int = 1, *, kind: str = "generate") -> ShardRun:
    return ShardRun(make_claim(shard, kind=kind), "w1", make_rows(1, batch=kind == "batch"))


def said(run: ShardRun, text: str, at: int = 0) -> RowDelta:
    return RowDelta(run.held.shard_id, run.held.epoch, 0, [Piece(0, at, text)])


def told(deltas: list[NewDelta]) -> list[tuple[int, int, object]]:
    return [(d.held.shard_id, d.seq, json.loads(d.pieces)) for d in deltas]


def test_what_a_row_says_between_two_writes_is_one_delta(clock: Clock) -> None:
    streams, one, other = Streams(), run_of(1), run_of(2)
    assert streams.due_at() is None
    streams.note(one, said(one, "ab"))
    streams.note(other, said(other, "x\x00"))
    streams.note(one, said(one, "c", 2))
    assert streams.due_at() is not None
    assert told(streams.take()) == [
        (1, 0, [[0, 0, "ab"], [0, 2, "c"]]),
        (2, 0, [[0, 0, "x\x00"]]),
    ]
    streams.told()
    assert streams.due_at() is None
    streams.note(one, said(one, "d", 3))
    assert streams.due_at() == clock.now + streaming.WRITE_SECONDS
    assert told(streams.take()) == [(1, 1, [[0, 3, "d"]])]


def test_the_first_word_waits_for_nothing(clock: Clock) -> None:
    streams, run = Streams(), run_of()
    streams.note(run, said(run, "a"))
    due = streams.due_at()
    assert due is not None
    assert due <= clock.now


def test_what_the_database_did_not_take_is_offered_again_as_it_was(clock: Clock) -> None:
    streams, run = Streams(), run_of()
    streams.note(run, said(run, "a"))
    first = told(streams.take())
    streams.postpone()
    streams.note(run, said(run, "b", 1))
    assert streams.due_at() == clock.now + streaming.OUTAGE_SECONDS
    assert told(streams.take()) == [*first, (1, 1, [[0, 1, "b"]])]


def test_nobody_is_told_of_slices_and_of_runs_that_end_or_have_ended() -> None:
    streams, ending, gone = Streams(), run_of(1), run_of(2)
    ending.ending = True
    streams.note(ending, said(ending, "a"))
    streams.note(None, said(gone, "a"))
    streams.note(batch := run_of(3, kind="batch"), said(batch, "a"))
    assert streams.due_at() is None


def test_a_shard_that_is_off_the_books_is_forgotten(clock: Clock) -> None:
    streams, one, other = Streams(), run_of(1), run_of(2)
    for run in (one, other):
        streams.note(run, said(run, "a"))
    streams.take()
    streams.postpone()
    streams.note(one, said(one, "b", 1))
    streams.forget(one.held)
    assert told(streams.take()) == [(2, 0, [[0, 0, "a"]])]


def test_a_childs_words_reach_the_streams_until_its_shard_is_closed(bench: Bench) -> None:
    run = bench.single()
    bench.child._inbox.append(Speaking([said(run, "a"), RowDelta(99, 1, 0, [Piece(0, 0, "b")])]))
    bench.generation.receive()
    assert told(bench.generation.streams.take()) == [(1, 0, [[0, 0, "a"]])]
    bench.generation.closed(run.held)
    assert bench.generation.streams.take() == []
