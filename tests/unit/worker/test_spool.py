"""The folder of files in flight: whose a file is, and what a dead worker leaves behind."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.unit.worker.media_files import made
from worker.engines.protocol import OutputFile
from worker.spool import PREFIX, BadFile, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "scratch with spaces")
    yield spool
    if spool.root.exists():
        spool.close()


@pytest.fixture
def folder(spool: Spool) -> str:
    folder = spool.engine_folder("m", quarantine=False)
    spool.open_engine_folder(folder)
    return folder


def left(spool: Spool) -> list[Path]:
    return [path for path in spool.root.rglob("*") if not path.is_dir()]


def test_folders_are_private_and_each_engine_has_its_own(spool: Spool, folder: str) -> None:
    for path in (spool.root, Path(folder)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    others = {spool.engine_folder("m", quarantine=True), spool.engine_folder("n", quarantine=False)}
    assert len(others | {folder}) == 3
    assert spool.engine_folder("m", quarantine=False) == folder


def test_a_file_is_moved_out_of_the_engines_reach(spool: Spool, folder: str) -> None:
    file = made(folder)
    taken = spool.take(folder, file)
    assert taken.path.read_bytes() == b"picture"
    assert not Path(file.path).exists()
    with pytest.raises(BadFile):
        spool.take(folder, file)


def test_what_is_not_a_plain_file_of_that_engine_is_refused(
    spool: Spool, folder: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("picture")
    other = spool.engine_folder("n", quarantine=False)
    spool.open_engine_folder(other)
    elsewhere = made(other)
    Path(folder, "link").symlink_to(secret)
    Path(folder, "folder").mkdir()
    Path(folder, "inner").mkdir()
    inner = made(str(Path(folder, "inner")))

    def at(path: str) -> OutputFile:
        return msgspec.structs.replace(made(folder), path=path)

    for file in (
        at(str(secret)),
        at(f"{folder}/../../../secret"),
        at(f"{folder}/link"),
        at(f"{folder}/folder"),
        at(f"{folder}/.."),
        at(f"{folder}/"),
        at(f"{folder}/absent"),
        at(""),
        inner,
        elsewhere,
        msgspec.structs.replace(made(folder), bytes=6),
    ):
        with pytest.raises(BadFile):
            spool.take(folder, file)
    assert secret.read_text() == "picture"
    assert Path(elsewhere.path).exists()


def test_one_bad_file_takes_its_row_along(spool: Spool, folder: str) -> None:
    files = [made(folder), made(folder, name="1.png", bytes=1), made(folder, name="2.png")]
    with pytest.raises(BadFile):
        spool.take_all(folder, files)
    assert left(spool) == []


def test_files_that_nobody_wants_are_removed(spool: Spool, folder: str) -> None:
    spool.drop(folder, [made(folder), made(folder, name="1.png")])
    assert left(spool) == []
    made(folder)
    spool.empty(folder)
    spool.empty(folder)
    assert left(spool) == []
    spool.open_engine_folder(folder)
    assert os.listdir(folder) == []


def test_closing_leaves_nothing(spool: Spool, folder: str) -> None:
    made(folder)
    spool.new_input().write_bytes(b"x")
    scratch = spool.root.parent
    spool.close()
    assert list(scratch.iterdir()) == []


def test_a_live_workers_folder_stays_and_a_dead_ones_goes(spool: Spool) -> None:
    scratch = spool.root.parent
    program = (
        "import sys, time; from pathlib import Path; from worker.spool import Spool;"
        "s = Spool(Path(sys.argv[1])); s.new_input().write_bytes(b'x');"
        "print(s.root, flush=True); sys.stdin.read()"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program, str(scratch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    assert worker.stdout is not None
    theirs = Path(worker.stdout.readline().strip())
    assert spool.root.exists()  # the other one has looked around
    Spool(scratch).close()
    assert theirs.exists()
    worker.kill()
    worker.wait()
    Spool(scratch).close()
    assert not theirs.exists()
    assert [path.name for path in scratch.glob(f"{PREFIX}*.lock")] == [f"{spool.root.name}.lock"]
