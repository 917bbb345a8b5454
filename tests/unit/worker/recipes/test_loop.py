"""The loop on a small network: going on exactly, stopping, and keeping the best."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing import event_accumulator

from tests.unit.worker.recipes.toy import Toy, write_rows
from tests.unit.worker.recipes.training_case import TrainingCase, register
from worker.recipes.reporting import read_history
from worker.recipes.shape import Trained
from worker.tuning.messages import (
    STOP,
    Failed,
    Finished,
    Metrics,
    Note,
    Plan,
    Saved,
    Started,
    Stopped,
    write_plan,
)

NUMBERS = {
    "n_epochs": 4, "batch_size": 8, "gradient_accumulation": 2, "learning_rate": 0.05,
    "precision": "fp32", "weight_decay": 0.1,
}  # fmt: skip
STEPS = 24
HERE = "tests.unit.worker.recipes.test_loop"
TOY = "tests.unit.worker.recipes.toy"

Make = Callable[[], TrainingCase]


class Killed(BaseException):
    """Stands for a kill -9: nobody handles it."""


class Interrupted(Toy):
    """Dies in the middle of a step, once."""

    at = 0

    def trained(self) -> Trained:
        found = super().trained()
        self.model.register_forward_pre_hook(self._count)
        self.forwards = 0
        return found

    def _count(self, *_: object) -> None:
        if self.model.training:
            self.forwards += 1
            if self.forwards == 2 * Interrupted.at:
                raise Killed


class Worsening(Toy):
    """Its validation loss is best at the second evaluation."""

    def evaluate(self) -> dict[str, float]:
        Worsening.looked += 1
        return {"valid_loss": {0: 9.0, 1: 5.0, 2: 1.0}.get(Worsening.looked - 1, 3.0)}

    looked = 0


class Odd(Toy):
    """Measures things that are no numbers."""

    def evaluate(self) -> dict[str, float]:
        return super().evaluate() | {"odd": float("nan"), "far": float("inf")}


class Broken(Toy):
    def train(self, loop: Any) -> None:
        raise torch.OutOfMemoryError("secret words of a tenant")


register("toy", f"{TOY}:Toy")
for _kind in (Interrupted, Worsening, Odd, Broken):
    register(_kind.__name__.lower(), f"{HERE}:{_kind.__name__}")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    numbers = iter(range(100))

    def one() -> TrainingCase:
        case = TrainingCase(tmp_path / f"a training {next(numbers)}")
        write_rows(case.data, 48, 8)
        return case

    return one


def test_a_whole_training_says_what_it_does(make: Make) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS, checkpoint_steps=10))
    (started,), (finished,) = case.said(Started), case.said(Finished)
    assert (started.steps, started.step) == (STEPS, 0)
    assert started.hyperparameters["auto"] == ["max_length", "image_size"]
    measured = {m.step: m.values for m in case.said(Metrics) if "valid_loss" in m.values}
    assert set(measured) == {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24}
    assert measured[24]["valid_loss"] < 0.5 * measured[0]["valid_loss"]
    assert {"train_loss", "learning_rate", "grad_norm", "eta_seconds"} <= set(measured[24])
    assert {"examples_per_second", "tokens_per_second", "memory_bytes"} <= set(measured[24])
    assert [saved.step for saved in case.said(Saved)] == [10, 20, 24]
    assert finished.trained_tokens == STEPS * 8
    best = min((values["valid_loss"], step) for step, values in measured.items() if step)
    assert (finished.metrics["after"]["valid_loss"], finished.step) == best
    assert finished.metrics["before"]["answer"] == 1.0
    assert finished.metrics["after"]["answer"] == 2.0


def test_result_files_hold_every_step(make: Make) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS))
    (finished,) = case.said(Finished)
    folder = case.folder / "result" / "files"
    for file in finished.files:
        assert (folder / file.path).is_file()
    kinds = {file.path: file.media_type for file in finished.files}
    assert kinds["loss.png"] == "image/png"
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, STEPS + 1))
    assert "tensorboard/events.out.tfevents.0" in kinds
    with (folder / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["step"]) for row in rows] == list(range(STEPS + 1))
    assert all(row["train_loss"] for row in rows[1:])
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    report = (folder / "report.md").read_text()
    assert "| valid_loss |" in report
    assert "A section of its own." in report
    assert "48 examples for training, 8 held out" in report
    assert "| max_length |" not in report  # it does not apply
    told = json.loads((folder / "report.json").read_text())
    assert told["steps"] == STEPS


@pytest.mark.parametrize("killed_at", [1, 5, 6, 13, 24])
def test_a_killed_training_goes_on_exactly(make: Make, killed_at: int) -> None:
    """Killed in a step, with what it had saved until then; every fifth step is saved."""
    whole = make()
    whole.run_here(whole.plan("toy", hyperparameters=NUMBERS, checkpoint_steps=5))
    again, saved = _interrupted(make, killed_at)
    assert saved == (killed_at - 1) // 5 * 5
    _assert_the_same(whole, again)
    steps = [row["step"] for row in read_history(again.folder / "history.jsonl")]
    assert [step for at, step in enumerate(steps) if step not in steps[:at]] == list(range(25))


def test_what_is_frozen_is_not_kept_again(make: Make) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS))
    state = load_file(Path(case.said(Saved)[-1].folder) / "state.safetensors")
    names = {name for name in state if not name.startswith("optimizer/")}
    assert "weights/net/1.weight" in names
    assert "weights/net/0.weight" not in names
    assert {"buffers/net/2.running_mean", "kept/average/weight"} <= names
    assert "optimizer/model/net.1.weight/exp_avg_sq" in state


def test_it_stops_when_asked_with_a_checkpoint(make: Make) -> None:
    case = make()
    plan = case.plan("toy", hyperparameters=NUMBERS)
    (case.folder / STOP).touch()
    case.run_here(plan)
    assert case.said(Stopped) == [Stopped(0)]
    assert case.said(Finished) == []
    assert case.said(Saved) == []


def test_a_stopped_training_goes_on_exactly(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make()
    whole.run_here(whole.plan("toy", hyperparameters=NUMBERS))
    case = make()
    real = Toy.evaluate

    def evaluate(self: Toy) -> dict[str, float]:
        steps = case.folder / "history.jsonl"
        if steps.exists() and len(steps.read_text().splitlines()) > 6:
            (case.folder / STOP).touch()
        return real(self)

    monkeypatch.setattr(Toy, "evaluate", evaluate)
    case.run_here(case.plan("toy", hyperparameters=NUMBERS))
    monkeypatch.undo()
    (stopped,), (saved,) = case.said(Stopped), case.said(Saved)
    assert stopped.step == saved.step == 8
    _assert_the_same(whole, _resumed(make, Path(saved.folder)))


def test_minutes_decide_when_no_steps_are_given(make: Make) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS, checkpoint_minutes=0.0))
    assert [saved.step for saved in case.said(Saved)] == list(range(1, STEPS + 1))


def test_early_stopping_delivers_the_best(make: Make) -> None:
    Worsening.looked = 0
    case = make()
    stopping = {"metric": "valid_loss", "mode": "min", "patience": 3, "min_delta": 0.0}
    case.run_here(case.plan("worsening", hyperparameters=NUMBERS, early_stopping=stopping))
    (finished,) = case.said(Finished)
    assert finished.step == 4
    assert finished.metrics["steps"] == 10
    assert case.said(Note)[0].text.startswith("early stopping at step 10")
    kept = load_file(case.folder / "best.safetensors")
    assert torch.equal(case.delivered()["1.weight"], kept["weights/net/1.weight"])
    newest = load_file(Path(case.said(Saved)[-1].folder) / "model" / "model.safetensors")
    assert not torch.equal(case.delivered()["1.weight"], newest["1.weight"])
    (last,) = case.said(Saved)
    again = _resumed(make, Path(last.folder), "worsening", early_stopping=stopping)
    assert again.said(Started)[0].step == 10
    assert torch.equal(again.delivered()["1.weight"], kept["weights/net/1.weight"])


def test_numbers_that_are_none_spoil_no_checkpoint(make: Make) -> None:
    """JSON has no word for them: the supervisor and the next attempt would read a null."""
    case = make()
    case.run_here(case.plan("odd", hyperparameters=NUMBERS, checkpoint_steps=10))
    first, *_ = case.said(Saved)
    assert set(first.metrics) == {"train_loss", "valid_loss"}
    again = _resumed(make, Path(first.folder), "odd")
    assert again.said(Started)[0].step == 10
    assert again.said(Finished)


def test_a_tracker_that_is_not_installed_is_told(make: Make) -> None:
    case = make()
    wanted = [{"type": "mlflow"}, {"type": "tensorboard"}]
    numbers = NUMBERS | {"max_steps": 2}
    case.run_here(case.plan("toy", hyperparameters=numbers, trackers=wanted))
    (note,) = case.said(Note)
    assert (note.level, note.text.split()[0]) == ("warn", "mlflow")
    assert case.said(Finished)


def test_an_unknown_metric_is_the_requests_fault(make: Make) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS, early_stopping={"metric": "fun"}))
    (failed,) = case.said(Failed)
    assert (failed.code, failed.blame) == ("bad_early_stopping", "request")
    assert failed.param == "early_stopping.metric"


def test_a_rate_that_breaks_the_training_is_named(make: Make) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS | {"learning_rate": 1.0e30}))
    (failed,) = case.said(Failed)
    assert (failed.code, failed.blame) == ("training_diverged", "request")


def test_what_goes_wrong_is_said_without_its_words(make: Make) -> None:
    case = make()
    case.run_here(case.plan("broken", hyperparameters=NUMBERS))
    (failed,) = case.said(Failed)
    assert (failed.code, failed.blame) == ("out_of_memory", "engine")
    assert "secret" not in failed.message
    other = make()
    other.run_here(other.plan("no such recipe"))
    assert other.said(Failed)[0].code == "unknown_recipe"


@pytest.mark.parametrize("change", ["seed", "data", "rate"])
def test_anothers_checkpoint_is_refused(make: Make, change: str) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS))
    other = make()
    if change == "data":
        write_rows(other.data, 48, 9)
    numbers = NUMBERS | ({"learning_rate": 0.1} if change == "rate" else {})
    resume = case.said(Saved)[-1].folder
    plan = {"hyperparameters": numbers, "seed": 5 if change == "seed" else 0, "resume": resume}
    other.run_here(other.plan("toy", **plan))
    assert other.said(Failed)[0].code == "checkpoint_mismatch"


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "manifest"])
def test_a_damaged_checkpoint_is_refused(make: Make, damage: str) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS))
    folder = Path(case.said(Saved)[-1].folder)
    state = folder / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-5] ^= 1
    {
        "flip": lambda: state.write_bytes(content),
        "cut": lambda: state.write_bytes(content[:-7]),
        "missing": state.unlink,
        "manifest": lambda: (folder / "manifest.json").write_text('{"step"'),
    }[damage]()
    other = make()
    other.run_here(other.plan("toy", hyperparameters=NUMBERS, resume=str(folder)))
    assert other.said(Failed)[0].code == "checkpoint_damaged"


def test_nothing_delivered_is_a_pickle(make: Make) -> None:
    case = make()
    case.run_here(case.plan("toy", hyperparameters=NUMBERS))
    for path in case.folder.rglob("*"):
        if path.is_file() and "tensorboard" not in path.parts:
            assert path.suffix in {".safetensors", ".json", ".jsonl", ".md", ".csv", ".png", ".txt"}
            assert path.read_bytes()[:2] != b"\x80\x02"


@pytest.mark.slow
def test_two_processes_go_on_exactly_and_die_together(make: Make) -> None:
    plan: dict[str, Any] = {"hyperparameters": NUMBERS, "checkpoint_steps": 5, "processes": 2}
    whole, killed = make(), make()
    whole.plan("toy", **plan)
    assert whole.run_apart(TOY, processes=2) == [0, 0], whole.log()
    killed.plan("toy", **plan)
    assert any(killed.run_apart(TOY, processes=2, TOY_KILL_AT="13"))
    saved = killed.said(Saved)[-1]
    assert saved.step == 10
    again = make()
    again.plan("toy", resume=saved.folder, **plan)
    assert again.run_apart(TOY, processes=2) == [0, 0], again.log()
    _assert_the_same(whole, again)
    assert whole.said(Started)[0].detail["processes"] == 2


def _interrupted(make: Make, killed_at: int) -> tuple[TrainingCase, int]:
    """A training that was killed in that step, then the one that went on; and from which step."""
    first = make()
    Interrupted.at = killed_at
    plan = first.plan("interrupted", hyperparameters=NUMBERS, checkpoint_steps=5)
    # The plan of what goes on must be the same, and is of the same recipe by another name.
    with pytest.raises(Killed):
        first.run_here(plan)
    saved = [message for message in first.said(Saved) if message.step < killed_at]
    Interrupted.at = 0
    folder = saved[-1].folder if saved else ""
    again = make()
    again.run_here(
        again.plan("interrupted", hyperparameters=NUMBERS, checkpoint_steps=5, resume=folder)
    )
    return again, saved[-1].step if saved else 0


def _resumed(make: Make, checkpoint: Path, recipe: str = "toy", **more: Any) -> TrainingCase:
    """From a copy elsewhere, as another worker has it."""
    again = make()
    copied = again.folder / "brought"
    shutil.copytree(checkpoint, copied)
    plan = again.plan(recipe, hyperparameters=NUMBERS, resume=str(copied), **more)
    assert isinstance(plan, Plan)
    write_plan(again.folder, plan)
    again.run_here(plan)
    return again


def _assert_the_same(one: TrainingCase, other: TrainingCase) -> None:
    """Delivered weights and everything in the last checkpoint, to the last bit."""
    assert one.said(Finished)[0].step == other.said(Finished)[0].step
    states = [
        load_file(Path(case.said(Saved)[-1].folder) / "state.safetensors") for case in (one, other)
    ]
    for first, second in (states, [one.delivered(), other.delivered()]):
        assert set(first) == set(second)
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), name
