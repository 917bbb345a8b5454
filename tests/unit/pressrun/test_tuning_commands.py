from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pressrun.exit_codes import CommandError, ExitCode
from pressrun.tuning_commands import parse_settings, snapshot_of
from pressrun.watching import plain_line
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer, tuning

JOBS = "/v1/fine_tuning/jobs"
DONE = tuning("succeeded", fine_tuned_model="ft:writer:t::1", step=24, steps=24, loss=0.5)


@pytest.fixture
def training(connected: FakeServer) -> FakeServer:
    Path("rows.jsonl").write_text('{"messages": []}\n')
    running = tuning("running", step=6, steps=24, loss=1.25, estimated_finish=time.time() + 30)
    connected.tunings = [tuning("validating_files"), running, DONE]
    return connected


def test_creating_uploads_the_examples_and_sends_what_was_set(
    training: FakeServer, run: Run
) -> None:
    ended = run(
        *("tune", "create", "rows.jsonl", "--model", "writer", "--method", "dpo"),
        *("--set", "n_epochs=3", "--set", "lora.rank=8", "--set", "adapter=lora"),
        *("--set", "batch_size=auto", "--suffix", "s", "--metadata", "a=b", "--seed", "7"),
        *("--validation", "file-2"),
    )
    assert ended.code == ExitCode.OK, ended.err
    assert ended.out.strip() == "ftjob-1"
    [sent] = training.requests("POST", JOBS)
    assert sent.headers["Idempotency-Key"]
    assert sent.body == {
        "model": "writer",
        "training_file": "file-1",
        "validation_file": "file-2",
        "method": {
            "type": "dpo",
            "dpo": {
                "hyperparameters": {"n_epochs": 3, "batch_size": "auto"},
                "lora": {"rank": 8},
                "adapter": "lora",
            },
        },
        "suffix": "s",
        "seed": 7,
        "metadata": {"a": "b"},
        "dry_run": False,
    }
    assert len(training.requests("POST", "/v1/files")) == 1


def test_watching_shows_step_loss_and_eta(training: FakeServer, run: Run) -> None:
    ended = run("tune", "create", "rows.jsonl", "--model", "writer", "--watch")
    assert ended.code == ExitCode.OK, ended.err
    assert "running: 6/24 steps, loss 1.25" in ended.err
    assert ", ETA " in ended.err
    assert "ft:writer:t::1" in ended.out


def test_a_line_has_an_eta_only_when_the_server_has_one() -> None:
    running = tuning("running", step=6, steps=24, loss=1.25)
    assert plain_line(snapshot_of(running), 10.0) == "running: 6/24 steps, loss 1.25, 10 s"
    begun = snapshot_of(tuning("running", steps=24))
    assert plain_line(begun, 1.0) == "running: 0/24 steps, 1 s"


def test_rejected_lines_are_told(training: FakeServer, run: Run) -> None:
    lines = [{"line": n, "message": "not JSON", "code": "invalid_json"} for n in range(1, 13)]
    error = {"code": "invalid_training_file", "message": "12 bad lines", "lines": lines}
    training.tunings = [tuning("failed", error=error)]
    ended = run("tune", "watch", "ftjob-1")
    assert ended.code == ExitCode.FAILED
    assert "line 1: not JSON (invalid_json)" in ended.err
    assert "… and 2 more" in ended.err
    assert "ftjob-1 ended failed: 12 bad lines (invalid_training_file)" in ended.err


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_acting_on_a_job(training: FakeServer, run: Run, action: str) -> None:
    training.tunings = [tuning("running", paused=action == "pause")]
    shown = run("tune", action, "ftjob-1").out.strip()
    assert shown == ("ftjob-1: running, paused" if action == "pause" else "ftjob-1: running")
    assert len(training.requests("POST", f"{JOBS}/ftjob-1/{action}")) == 1


def test_lists_are_tables_or_json(training: FakeServer, run: Run) -> None:
    training.tunings = [DONE]
    assert "ft:writer:t::1" in run("tune", "list").out
    assert json.loads(run("tune", "get", "ftjob-1", "--json").out) == DONE
    told = run("tune", "events", "ftjob-1").out
    assert told.index("begun") < told.index("Step 2")
    assert "ft:writer:t::1:ckpt-step-2" in run("tune", "checkpoints", "ftjob-1").out


@pytest.mark.parametrize("pair", ["n_epochs", "=3", "loro.rank=3", "lora.=3"])
def test_settings_that_are_none_are_wrong_usage(pair: str) -> None:
    with pytest.raises(CommandError) as error:
        parse_settings([pair])
    assert error.value.exit_code == ExitCode.USAGE


def test_a_file_that_is_not_there_is_wrong_usage(training: FakeServer, run: Run) -> None:
    ended = run("tune", "create", "nothing.jsonl", "--model", "writer")
    assert ended.code == ExitCode.USAGE
    assert not training.requests("POST", JOBS)


# --- sweeps -------------------------------------------------------------------------------------

SPACE = {"learning_rate": {"min": 1e-5, "max": 1e-2, "log": True}}
SWEEP = {
    "trials": 3,
    "metric": "valid_loss",
    "finished": 1,
    "pruned": 1,
    "failed": 0,
    "best": {"job": "ftjob-b", "number": 2, "params": {"learning_rate": 0.002}, "value": 0.25},
}


def trial(number: int, job_id: str, value: float | None, *, pruned: bool) -> dict[str, object]:
    shown = {
        "number": number,
        "params": {"learning_rate": number / 1000},
        "value": value,
        "pruned": pruned,
    }
    status = "cancelled" if pruned else "succeeded"
    return tuning(status, sweep=shown, parent_id="ftjob-1") | {"id": job_id}


def test_a_sweep_is_read_from_a_file(training: FakeServer, run: Run) -> None:
    Path("sweep.json").write_text(json.dumps({"trials": 20, "space": SPACE, "parallel": 2}))
    ended = run(
        *("tune", "create", "rows.jsonl", "--model", "writer"),
        *("--sweep", "sweep.json", "--trials", "6"),
    )
    assert ended.code == ExitCode.OK, ended.err
    [sent] = training.requests("POST", JOBS)
    assert sent.body["sweep"] == {"trials": 6, "space": SPACE, "parallel": 2}


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        (None, ("--sweep", "sweep.json"), "there is no file sweep.json"),
        ("{", ("--sweep", "sweep.json"), "sweep.json is not JSON"),
        ("[]", ("--sweep", "sweep.json"), "sweep.json must hold an object"),
        ("{}", ("--trials", "3"), "--trials goes with --sweep"),
    ],
)
def test_a_sweep_that_is_none_is_wrong_usage(
    training: FakeServer, run: Run, content: str | None, options: tuple[str, ...], why: str
) -> None:
    if content is not None:
        Path("sweep.json").write_text(content)
    ended = run("tune", "create", "rows.jsonl", "--model", "writer", *options)
    assert (ended.code, why in ended.err) == (ExitCode.USAGE, True)
    assert not training.requests("POST", JOBS)


def test_showing_a_sweep_prints_its_trials(training: FakeServer, run: Run) -> None:
    training.tunings = [tuning("running", sweep=SWEEP)]
    training.trials = [
        trial(2, "ftjob-b", 0.25, pruned=False),
        trial(1, "ftjob-a", None, pruned=True),
    ]
    shown = run("tune", "show", "ftjob-1").out
    assert "2 of 3 (1 finished, 1 pruned, 0 failed)" in shown
    assert "valid_loss=0.25, trial 2" in shown
    first, second = (line.split() for line in shown.splitlines()[-2:])
    assert first == ["1", "pruned", "-", "0.001", "ftjob-a"]
    assert second == ["2", "succeeded,", "best", "0.25", "0.002", "ftjob-b"]
    [asked] = training.requests("GET", JOBS)
    assert asked.query["parent"] == ["ftjob-1"]


def test_watching_a_sweep_counts_trials() -> None:
    running = tuning("running", sweep=SWEEP)
    assert plain_line(snapshot_of(running), 10.0) == (
        "running: 2/3 trials, best valid_loss 0.25, 10 s"
    )


def test_a_trial_says_whose_it_is(training: FakeServer, run: Run) -> None:
    training.tunings = [trial(2, "ftjob-b", 0.25, pruned=False)]
    shown = run("tune", "get", "ftjob-b").out
    assert "2 of ftjob-1" in shown
    assert not training.requests("GET", JOBS)
