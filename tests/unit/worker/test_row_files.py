"""Rows that make files: they count once their files are stored, and a bad file fails its row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.errors import StorageUnavailable
from shared.ids import artifact_id
from shared.lifecycle.working import NewArtifact
from shared.states import ShardState
from shared.storage.base import StoredObject
from shared.storage.local import LocalStore
from tests.unit.worker.claims import answer, make_claim, make_rows
from tests.unit.worker.media_files import made
from worker.engines.protocol import OutputFile
from worker.execution import ShardRun
from worker.outputs import LARGEST_SIDE, LONGEST_PROVENANCE, MOST_FILES, check_files
from worker.spool import BadFile, Spool

ROW = "job_1-0"


class PickyStore(LocalStore):
    """Counts puts, and fails the first ones when told to."""

    failures = 0
    puts = 0

    def put_file(self, key: str, path: Path, *, media_type: str) -> StoredObject:
        self.puts += 1
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("away")
        return super().put_file(key, path, media_type=media_type)


class World:
    """An engine's folder, a store, and the answers that come with files."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "scratch")
        self.store = PickyStore(folder / "artifacts", "x" * 16)
        self.folder = self.spool.engine_folder("m", quarantine=False)
        self.spool.open_engine_folder(self.folder)

    def batch(self, rows: int) -> ShardRun:
        return ShardRun(make_claim(1, kind="batch", ordinal=4), "w1", make_rows(rows))

    def answer(self, run: ShardRun, index: int, *files: OutputFile, status: int = 200) -> None:
        result = answer(run.claim, index, status=status, files=list(files))
        run.take_filed(result, self.spool, self.folder)

    def picture(self, line: int, **fields: Any) -> OutputFile:
        return made(self.folder, f"batch_1-{line}", **fields)

    def left(self) -> list[Path]:
        return [path for path in self.spool.root.rglob("*") if path.is_file()]

    def lines(self, stored: StoredObject | None) -> list[dict[str, Any]]:
        assert stored is not None
        return [json.loads(line) for line in b"".join(self.store.read(stored.key)).splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.spool.close()


def run_now(storing: Callable[[], list[NewArtifact]]) -> Future[list[NewArtifact]]:
    future: Future[list[NewArtifact]] = Future()
    try:
        future.set_result(storing())
    except Exception as error:
        future.set_exception(error)
    return future


def test_a_rows_line_and_its_files_come_together(world: World) -> None:
    run = world.batch(2)
    picture = world.picture(1, width=64, height=32, provenance={"seed": 1})
    thumbnail = world.picture(
        1, name="0.thumbnail.webp", data=b"small", role="thumbnail",
        media_type="image/webp", parent=picture.id,
    )  # fmt: skip
    world.answer(run, 0, picture, thumbnail)
    world.answer(run, 1)
    assert run.done
    assert run.has_files
    end = run.end_slice(world.store)
    assert (end.rows_completed, end.rows_failed) == (2, 0)
    assert [(a.id, a.line, a.role, a.parent_id) for a in end.artifacts] == [
        (picture.id, 1, "image", None), (thumbnail.id, 1, "thumbnail", picture.id),
    ]  # fmt: skip
    key = f"t/ten_a/j/batch_1/a/4/e1/{picture.id}.png"
    sha256 = hashlib.sha256(b"picture").hexdigest()
    assert end.artifacts[0].stored == StoredObject(key, sha256, 7)
    assert (end.artifacts[0].width, end.artifacts[0].provenance) == (64, {"seed": 1})
    assert b"".join(world.store.read(key)) == b"picture"
    assert len(world.lines(end.output)) == 2
    assert world.left() == []


def test_a_file_with_other_content_fails_its_row_alone_and_leaves_no_object(world: World) -> None:
    run = world.batch(2)
    bad = world.picture(1, sha256="0" * 64)
    world.answer(run, 0, bad)
    world.answer(run, 1, world.picture(2))
    assert (run.completed, run.failed) == (2, 0)
    end = run.end_slice(world.store)
    assert (end.rows_completed, end.rows_failed) == (1, 1)
    assert [artifact.line for artifact in end.artifacts] == [2]
    (failed,) = world.lines(end.errors)
    assert (failed["custom_id"], failed["error"]["code"]) == ("row-0", "engine_error")
    assert sum(line.rows for line in end.usage) == 1
    stored = [path for path in world.store._root.rglob("*.png") if path.is_file()]
    assert [path.stem for path in stored] == [artifact_id("batch_1-2", "0.png")]
    run.discard()
    assert world.left() == []


def test_a_file_that_is_not_there_fails_its_row_at_once(world: World) -> None:
    run = world.batch(1)
    gone = world.picture(1)
    Path(gone.path).unlink()
    world.answer(run, 0, gone)
    assert (run.done, run.completed, run.failed, run.has_files) == (True, 0, 1, False)


def test_storing_goes_on_where_an_outage_broke_it_off(world: World) -> None:
    run = world.batch(3)
    for index in range(3):
        world.answer(run, index, world.picture(index + 1))
    world.store.failures = 1
    with pytest.raises(StorageUnavailable):
        run.end_slice(world.store)
    end = run.end_slice(world.store)
    assert [artifact.line for artifact in end.artifacts] == [1, 2, 3]
    assert len(world.lines(end.output)) == 3
    assert world.store.puts == 4


def test_files_are_stored_early_and_once(world: World) -> None:
    run = world.batch(2)
    world.answer(run, 0, world.picture(1))
    run.store_early(world.store, run_now)
    assert world.left() == []
    world.store.failures = 1
    world.answer(run, 1, world.picture(2))
    run.store_early(world.store, run_now)  # fails, and nobody has asked yet
    assert world.store.puts == 2
    with pytest.raises(StorageUnavailable):
        run.end_slice(world.store)
    assert [artifact.line for artifact in run.end_slice(world.store).artifacts] == [1, 2]
    assert world.store.puts == 3


def test_a_single_generation_ends_with_its_files(world: World) -> None:
    run = ShardRun(make_claim(1), "w1", make_rows(1, batch=False))
    world.answer(run, 0, made(world.folder, ROW))
    run.store_files(world.store)
    end = run.end_generation()
    assert end.state == ShardState.SUCCEEDED
    assert [artifact.stored.key for artifact in end.artifacts] == [
        f"t/ten_a/j/job_1/a/0/e1/{artifact_id(ROW, '0.png')}.png"
    ]


def test_a_steps_files_stand_under_its_shard_and_name(world: World) -> None:
    claim = make_claim(7, kind="batch", stage="step", step="picture 1", step_line=3, ordinal=9)
    row = replace(make_rows(1, batch=False)[0], line=3, id="batch_7-3-picture 1")
    run = ShardRun(claim, "w1", [row])
    assert not run.is_batch
    world.answer(run, 0, made(world.folder, "batch_7-3-picture 1"))
    run.store_files(world.store)
    (artifact,) = run.end_generation().artifacts
    assert (artifact.line, artifact.step) == (3, "picture 1")
    assert artifact.stored.key.startswith("t/ten_a/j/batch_7/a/7/e1/")


def test_files_of_answers_that_do_not_count_are_removed(world: World) -> None:
    run = world.batch(1)
    world.answer(run, 0, world.picture(1), status=500)
    assert not run.has_files
    world.answer(run, 0, world.picture(1))  # a second answer
    assert not run.has_files
    run.discard()
    assert world.left() == []


def test_only_descriptions_that_can_be_true_are_taken(world: World) -> None:
    good = made(world.folder, ROW)
    parent = made(world.folder, ROW, name="1.webp", parent=good.id, role="thumbnail")
    check_files(ROW, [good, parent])
    foreign = artifact_id("job_2-0", "0.png")
    for wrong in (
        {"name": "../0.png"},
        {"name": "noextension"},
        {"name": "0.PNG!"},
        {"id": foreign},
        {"role": "manifest"},
        {"media_type": "text/html"},
        {"media_type": "image/svg+xml"},
        {"parent": foreign},
        {"width": 0},
        {"height": LARGEST_SIDE + 1},
        {"seconds": float("nan")},
        {"seconds": -1.0},
        {"provenance": {"loss": float("inf")}},
        {"provenance": {"prompt": "x" * LONGEST_PROVENANCE}},
    ):
        name = wrong.get("name", "0.png")
        file = made(world.folder, ROW, **({"id": artifact_id(ROW, name)} | wrong))
        with pytest.raises(BadFile):
            check_files(ROW, [file])
    with pytest.raises(BadFile):
        check_files(ROW, [good, good])
    many = [made(world.folder, ROW, name=f"{n}.png") for n in range(MOST_FILES + 1)]
    with pytest.raises(BadFile):
        check_files(ROW, many)
