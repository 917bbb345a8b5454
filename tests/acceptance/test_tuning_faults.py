"""Trainings in a real plant: whatever is killed, the weights are those of a quiet run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from tests.integration.training_case import rows
from tests.plant import FAST, Plant, Process, plant, wait_until

QUICK_TO_JUDGE = {
    "HEARTBEAT_SECONDS": "0.3",
    "SESSION_TTL_SECONDS": "1.5",
    "POLL_SECONDS": "0.3",
    "UPKEEP_SECONDS": "0.1",
}
KILLS = 10
INTERVAL = 5
STEPS = 80
SLOWLY = "[[seconds 0.08]]"
PATIENCE_SECONDS = 120.0
TRAINER, SPARE = "trainer", "spare"


@pytest.fixture
def running(tmp_path: Path, database_url: str) -> Iterator[Plant]:
    with plant(tmp_path / "a plant", database_url, models=[FAST], settings=QUICK_TO_JUDGE) as made:
        made.start(workers=0)
        made.start_worker(TRAINER, "train")
        yield made


def submit(running: Plant, commands: str = SLOWLY) -> str:
    client = running.client()
    file = client.files.create(file=("train.jsonl", rows(12, commands)), purpose="fine-tune")
    options = {"max_steps": STEPS, "n_epochs": 50, "batch_size": 1}
    job = client.fine_tuning.jobs.create(
        model="fake",
        training_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": options}},  # type: ignore[typeddict-item]
        seed=3,
        extra_body={"checkpoints": {"every_steps": INTERVAL}},
    )
    return job.id


def state(running: Plant, job_id: str) -> str:
    return str(running.scalar("SELECT state FROM jobs WHERE id = :id", id=job_id))


def wait_ended(running: Plant, job_id: str) -> None:
    ended = {"succeeded", "failed", "cancelled"}
    wait_until(
        lambda: state(running, job_id) in ended,
        PATIENCE_SECONDS,
        running.processes[TRAINER].log,
    )


def moments(choice: random.Random) -> list[int | None]:
    """When to kill: so many steps after the newest checkpoint was committed, or None, at once,
    which is while the training is prepared. Two of three come after a checkpoint of that attempt:
    a job that is lost five times without getting any further is given up."""
    short = [choice.choice([None, choice.randint(1, INTERVAL)]) for _ in range(KILLS)]
    return [short[n] if n % 3 == 0 else INTERVAL + choice.randrange(INTERVAL) for n in range(KILLS)]


def wait_moment(running: Plant, job_id: str, moment: int | None) -> None:
    if moment is None:
        return
    if moment >= INTERVAL:
        before = committed(running, job_id)
        wait_until(lambda: committed(running, job_id) > before, PATIENCE_SECONDS)
        moment -= INTERVAL
    target = committed(running, job_id) + moment
    wait_until(lambda: step_of(running) >= target, PATIENCE_SECONDS, pause_seconds=0.02)


def holder(running: Plant, job_id: str) -> Process:
    """The worker that has the training."""
    pid = running.scalar(
        "SELECT w.pid FROM shards s JOIN sessions w ON w.id = s.session_id"
        " WHERE s.job_id = :id AND s.stage = 'train' AND s.state = 'running'",
        id=job_id,
    )
    (found,) = [running.processes[name] for name in (TRAINER, SPARE)
                if running.processes[name].pid == pid]  # fmt: skip
    return found


def resumed_at(running: Plant, job_id: str) -> list[int]:
    """The step that each attempt went on from, as far as it came to say so."""
    with running.engine.connect() as connection:
        notes = connection.execute(
            text(
                "SELECT data ->> 'message' FROM events"
                " WHERE job_id = :id AND type = 'fine_tune.note' ORDER BY id"
            ),
            {"id": job_id},
        ).scalars()
        return [int(note.rpartition(" ")[2]) for note in notes]


def epoch_of(running: Plant, job_id: str) -> int:
    """How often the training was claimed."""
    return int(running.scalar(
        "SELECT coalesce(max(epoch), 0) FROM shards WHERE job_id = :id AND stage = 'train'",
        id=job_id,
    ))  # fmt: skip


def committed(running: Plant, job_id: str) -> int:
    return int(
        running.scalar(
            "SELECT coalesce(max(step), 0) FROM checkpoints"
            " WHERE job_id = :id AND dropped_at IS NULL",
            id=job_id,
        )
    )


def weights(running: Plant, job_id: str) -> str:
    """SHA-256 of the delivered weights."""
    files = running.scalar(
        "SELECT m.files FROM jobs j JOIN models m ON m.id = j.result ->> 'fine_tuned_model'"
        " WHERE j.id = :id",
        id=job_id,
    )
    (found,) = [file for file in files if file["path"] == "model.safetensors"]
    return str(found["sha256"])


def message_files(running: Plant) -> list[Path]:
    return list((running.folder / "scratch").glob("spool-*/trainings/*/messages.jsonl"))


def forget_messages(running: Plant) -> None:
    """What is found from here on is the next attempt's."""
    for path in message_files(running):
        path.unlink()


def said(running: Plant) -> list[dict[str, Any]]:
    """Every message of the attempt that is under way on this machine, or was last."""
    found = []
    for path in message_files(running):
        *lines, _ = path.read_bytes().split(b"\n")
        found += [json.loads(line) for line in lines]
    return found


def step_of(running: Plant) -> int:
    """The newest step of that attempt; 0 before it has begun."""
    return max((message["step"] for message in said(running) if "step" in message), default=0)


def saved(running: Plant) -> int:
    """The newest checkpoint that it has written, whether or not it is stored."""
    return max((m["step"] for m in said(running) if m["type"] == "Saved"), default=0)


def trees(running: Plant) -> list[int]:
    """Every process of a training of this plant."""
    scratch = str(running.folder / "scratch")
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if any(scratch in word for word in process.info["cmdline"] or ())
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.slow
def test_killed_ten_times_the_weights_are_those_of_a_quiet_run(running: Plant) -> None:
    quiet = submit(running)
    wait_ended(running, quiet)
    running.start_worker(SPARE, "train")

    job_id = submit(running)
    kept = [0]
    for kill, moment in enumerate(moments(random.Random(26)), start=1):
        wait_until(lambda n=kill: epoch_of(running, job_id) == n, PATIENCE_SECONDS)
        wait_moment(running, job_id, moment)
        victim = holder(running, job_id)
        victim.kill()
        wait_until(lambda: trees(running) == [], PATIENCE_SECONDS)
        kept.append(committed(running, job_id))
        # What was saved was saved in time, and what was committed is gone on from: lost is at most
        # an interval, and what was trained while the newest checkpoint was on its way.
        assert step_of(running) - max(saved(running), kept[-1]) <= INTERVAL
        forget_messages(running)
        running.restart(victim.name)
    wait_ended(running, job_id)

    assert state(running, job_id) == "succeeded"
    assert epoch_of(running, job_id) == KILLS + 1
    assert weights(running, job_id) == weights(running, quiet)
    assert kept == sorted(kept)
    assert set(resumed_at(running, job_id)) <= set(kept)
    steps = running.scalar("SELECT count(*) FROM training_metrics WHERE job_id = :id", id=job_id)
    assert steps == STEPS
    wait_until(lambda: trees(running) == [], PATIENCE_SECONDS)


def test_a_worker_that_is_told_to_leave_takes_a_checkpoint_first(running: Plant) -> None:
    job_id = submit(running, "[[wait-once 23]]")
    wait_until(lambda: step_of(running) == 22, PATIENCE_SECONDS)
    running.processes[TRAINER].terminate()
    wait_until(lambda: not running.processes[TRAINER].guard.running, PATIENCE_SECONDS)
    assert trees(running) == []
    budgets = "SELECT preempt_n || '/' || error_n || '/' || crash_n || '/' || lost_n FROM shards"
    query = f"{budgets} WHERE job_id = :id AND stage = 'train'"
    assert running.scalar(query, id=job_id) == "1/0/0/0"
    assert committed(running, job_id) == 23

    running.restart(TRAINER)
    wait_ended(running, job_id)
    assert state(running, job_id) == "succeeded"
    note = (
        "SELECT count(*) FROM events WHERE job_id = :id AND type = 'fine_tune.note'"
        " AND data ->> 'message' LIKE :text"
    )
    assert running.scalar(note, id=job_id, text="%, from step 23") == 1
