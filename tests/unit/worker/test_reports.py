"""How far rows are: what is written, what is told, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.worker.claims import make_claim, make_rows
from tests.unit.worker.fake_pool import FakeCommits
from tests.unit.worker.media_files import made
from worker.engines.protocol import OutputFile, RowProgress
from worker.execution import ShardRun
from worker.reports import ANNOUNCE_SECONDS, WRITE_SECONDS, Reports
from worker.spool import Spool


class World:
    """Reports with a clock of their own."""

    def __init__(self, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("worker.reports.time", clock)
        self.spool, self.commits = Spool(scratch), FakeCommits()
        self.folder = self.spool.engine_folder("m", quarantine=False)
        self.spool.open_engine_folder(self.folder)
        self.reports = Reports(self.spool, self.commits)
        self.run = ShardRun(make_claim(1), "w1", make_rows(1, batch=False))

    def note(
        self, step: int, *, run: ShardRun | None = None, preview: OutputFile | None = None
    ) -> None:
        row = RowProgress(1, 1, 0, step, 4, "denoising", preview)
        self.reports.note(run or self.run, row, self.folder)

    def taken(self) -> list[tuple[float, int, bool]]:
        return [(step.fraction, step.step, step.announce) for step in self.reports.take()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.spool.close()


def test_the_first_word_is_urgent_and_told(world: World) -> None:
    assert world.reports.due_at() is None
    world.note(1)
    due = world.reports.due_at()
    assert due is not None
    assert due <= world.now
    assert world.taken() == [(0.25, 1, True)]
    assert world.reports.due_at() is None
    assert world.taken() == []  # nothing has changed


def test_later_words_wait_for_the_watch_and_are_told_once_a_second(world: World) -> None:
    world.note(1)
    world.taken()
    world.note(2)
    assert world.reports.due_at() is None
    world.now += ANNOUNCE_SECONDS / 2
    assert world.taken() == [(0.5, 2, False)]
    world.note(3)
    world.now += ANNOUNCE_SECONDS / 2
    assert world.taken() == [(0.75, 3, True)]


def test_first_words_of_many_rows_share_a_write(world: World) -> None:
    world.note(1)
    world.taken()
    other = ShardRun(make_claim(2), "w1", make_rows(1, batch=False))
    world.note(1, run=other)
    assert world.reports.due_at() == world.now + WRITE_SECONDS


def test_progress_never_goes_back_within_an_attempt(world: World) -> None:
    world.note(3)
    world.taken()
    world.note(1)  # the row runs again, its engine had crashed
    assert world.taken() == [(0.75, 1, False)]
    world.note(9)
    assert world.taken()[0][0] == 1.0


def test_slices_and_ended_runs_take_no_part(world: World) -> None:
    slice_run = ShardRun(make_claim(3, kind="batch"), "w1", make_rows(1))
    world.note(1, run=slice_run, preview=made(world.folder))
    world.run.ending = True
    world.note(1, preview=made(world.folder, name="1.png"))
    world.reports.note(None, RowProgress(9, 9, 0, 1, 4, preview=made(world.folder)), world.folder)
    assert world.taken() == []
    assert world.commits.previews == []
    assert [path for path in world.spool.root.rglob("*") if path.is_file()] == []


def test_a_preview_is_handed_over_and_a_bad_one_is_not(world: World) -> None:
    world.note(2, preview=made(world.folder, name="0.preview.0.webp", role="preview"))
    ((run, taken, step),) = world.commits.previews
    assert (run, step) == (world.run, 2)
    assert taken.path.exists()
    world.note(3, preview=made(world.folder, bytes=1))
    assert len(world.commits.previews) == 1
    assert world.taken() == [(0.75, 3, True)]


def test_a_step_of_a_graph_is_told_by_name(world: World) -> None:
    claim = make_claim(5, kind="campaign", stage="step", step="picture 1", step_line=3)
    world.note(1, run=ShardRun(claim, "w1", make_rows(1, batch=False)))
    (step,) = world.reports.take()
    assert step.event() == '{"step": 1, "steps": 4, "stage": "denoising", "name": "picture 1"}'
    world.reports.forget(claim.held)
    assert world.taken() == []
