"""Process trees of trainings: whoever dies, nothing of them is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.plant import ROOT, wait_until
from worker.engines.child import engine_environment
from worker.tuning import process
from worker.tuning.messages import DATA, LOG, MESSAGES, Plan, write_plan
from worker.tuning.process import TrainingProcess

PATIENCE_SECONDS = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Its name is in the command line of every process of the training."""
    folder = tmp_path / "a training"
    folder.mkdir()
    yield folder
    for left in processes(folder):
        left.kill()


def write_training(folder: Path, commands: str, processes_: int = 1) -> None:
    (folder / DATA).mkdir()
    for name in ("train.jsonl", "validation.jsonl"):
        (folder / DATA / name).write_text(json.dumps({"text": commands}) + "\n")
    plan = Plan(recipe="fake", model="m", processes=processes_, hyperparameters={"max_steps": 9})
    write_plan(folder, plan)


def start(folder: Path, commands: str, processes_: int = 1) -> TrainingProcess:
    write_training(folder, commands, processes_)
    return TrainingProcess(folder, processes=processes_, environment=engine_environment(os.environ))


def processes(folder: Path) -> list[psutil.Process]:
    found = []
    for each in psutil.process_iter(["cmdline", "status"]):
        words = each.info["cmdline"] or ()
        if any(str(folder) in word for word in words[1:]) and each.info["status"] != "zombie":
            found.append(each)
    return found


def wait_started(folder: Path) -> None:
    """Until the fake recipe is at its first step, where it is told to hang."""
    messages = folder / MESSAGES
    wait_until(
        lambda: messages.exists() and b"from step 0" in messages.read_bytes(),
        PATIENCE_SECONDS,
        (folder / LOG).read_text,
    )


def test_a_tree_that_ends_well(folder: Path) -> None:
    tree = start(folder, "")
    wait_until(lambda: tree.poll() is not None, PATIENCE_SECONDS, tree.log_tail)
    found = tree.poll()
    assert found is not None
    assert (found.code, found.signal, found.out_of_memory) == (0, None, False)
    assert b"Finished" in (folder / MESSAGES).read_bytes()
    assert processes(folder) == []


def test_how_a_rank_died_is_told(folder: Path) -> None:
    tree = start(folder, "[[crash 1]]")
    wait_until(lambda: tree.poll() is not None, PATIENCE_SECONDS, tree.log_tail)
    assert str(tree.poll()) == "the training's process died by SIGKILL"


def test_one_rank_that_dies_takes_the_others_along(folder: Path) -> None:
    tree = start(folder, "[[exit 1]]", processes_=3)
    wait_until(lambda: tree.poll() is not None, PATIENCE_SECONDS, tree.log_tail)
    found = tree.poll()
    assert found is not None
    assert found.code == 3
    assert processes(folder) == []


def test_killing_a_tree_leaves_nothing(folder: Path) -> None:
    tree = start(folder, "[[child 1]] [[hang 2]]", processes_=2)
    wait_started(folder)
    wait_until(
        lambda: len(processes(folder)) == 4, PATIENCE_SECONDS
    )  # with the child's own session
    tree.kill()
    assert processes(folder) == []
    tree.kill()


def test_ranks_die_with_their_launcher(folder: Path) -> None:
    tree = start(folder, "[[hang 1]]")
    wait_started(folder)
    os.kill(tree.pid, signal.SIGKILL)
    wait_until(lambda: processes(folder) == [], PATIENCE_SECONDS)
    found = tree.poll()
    assert found is not None
    assert found.signal == signal.SIGKILL


def test_a_tree_dies_with_its_supervisor(folder: Path) -> None:
    write_training(folder, "[[child 1]] [[hang 2]]")
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from worker.tuning.process import TrainingProcess\n"
        "TrainingProcess(Path(sys.stdin.readline().strip()), processes=1, environment=os.environ)\n"
        "time.sleep(600)"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, cwd=ROOT, text=True
    )
    try:
        assert supervisor.stdin is not None
        supervisor.stdin.write(f"{folder}\n")
        supervisor.stdin.flush()
        wait_started(folder)
        wait_until(lambda: len(processes(folder)) == 3, PATIENCE_SECONDS)
    finally:
        supervisor.kill()
        supervisor.communicate()
    wait_until(lambda: processes(folder) == [], PATIENCE_SECONDS)


def test_a_log_that_grows_long_keeps_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = start(folder, "[[exit 1]]")
    wait_until(lambda: tree.poll() is not None, PATIENCE_SECONDS)
    monkeypatch.setattr(process, "LONGEST_LOG", 10_000)
    (folder / LOG).write_bytes(b"early\n" + b"x" * 20_000 + b"\nlate")
    tree.trim_log()
    assert (folder / LOG).stat().st_size == process.TAIL_BYTES
    assert tree.log_tail().endswith("late")


@pytest.mark.parametrize(
    "last", ["torch.OutOfMemoryError: CUDA out of memory.", "MemoryError", "not enough memory: you"]
)
def test_memory_that_ran_out_is_named(folder: Path, last: str) -> None:
    tree = start(folder, "[[exit 1]]")
    wait_until(lambda: tree.poll() is not None, PATIENCE_SECONDS)
    (folder / LOG).write_text(f"Traceback\n{last}\n")
    assert str(tree.poll()) == "the training ran out of memory"
