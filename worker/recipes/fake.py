"""A recipe without a model, for tests of everything around a training.

It has what matters there: real state (weights and momentum), steps that follow from the seed and
the step's number alone, metrics, checkpoints that it goes on from, and a delivered model. Texts of
the training data may hold commands, so that a test can say what goes wrong::

    [[seconds 0.05]]      each step takes that long
    [[crash 7]]           kill -9 of itself at step 7; [[crash-once 7]]: unless it was resumed
    [[exit 7]]            exits with 3 at step 7
    [[hang 7]]            never says anything again; [[hang-once 7]]
    [[wait 7]]            waits for ``go``, or to be asked to stop; [[wait-once 7]]
    [[fail 7 data]]       ``Failed`` with that blame: data, request or engine
    [[deaf 1]]            does not hear when it is asked to stop
    [[child 3]]           starts a process in a session of its own at step 3
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.tuning.messages import (
    CHECKPOINTS,
    DATA,
    MESSAGES,
    RESULT,
    STOP,
    TRAIN_DATA,
    VALIDATION_DATA,
    Failed,
    Finished,
    FromTraining,
    Metrics,
    Note,
    ResultFile,
    Saved,
    Started,
    Stopped,
    encode,
    read_plan,
)

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, np.dtype[np.float64]]

WIDTH = 256
MOMENTUM = 0.9
RATE = 0.05
CHECKPOINT_STEPS = 5
ENDED, GO = "ended", "go"
_COMMAND = re.compile(r"\[\[([a-z-]+) ([0-9.]+)(?: ([a-z]+))?\]\]")


def run(folder: Path) -> int:
    """The whole training; returns the exit code. Of several processes, the first does it all."""
    if os.environ.get("RANK", "0") != "0":
        return _accompany(folder)
    return FakeTraining(folder).run()


def _accompany(folder: Path) -> int:
    """Ends after the first process."""
    while not (folder / ENDED).exists():
        time.sleep(0.02)
    return 0


class FakeTraining:
    """Moves a vector towards the rows of the data, each a point that its text decides."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self._folder = folder
        self._plan = read_plan(folder)
        self._texts = _lines(folder / DATA / TRAIN_DATA)
        self._validation = _lines(folder / DATA / VALIDATION_DATA)
        self._commands = _commands(self._texts)
        self._weights: Vector = np.zeros(WIDTH)
        self._momentum: Vector = np.zeros(WIDTH)
        self._step = 0
        self._best = math.inf

    def run(self) -> int:
        if self._plan.resume:
            self._load(Path(self._plan.resume))
        first = self._step
        options = {
            "n_epochs": self._epochs(),
            "batch_size": self._batch(),
            "learning_rate": RATE,
        }
        self._say(
            Started(
                self._steps(),
                first,
                hyperparameters=self._plan.hyperparameters | options,
                detail={"device": "none", "processes": self._plan.processes},
                engine="fake",
            )
        )
        self._say(Note(f"{len(self._texts)} examples, from step {first}"))
        saved = -1
        while self._step < self._steps():
            self._obey(first)
            self._take_step()
            if self._step % (self._plan.checkpoint_steps or CHECKPOINT_STEPS) == 0:
                saved = self._save()
            if (self._folder / STOP).exists() and "deaf" not in self._commands:
                if saved != self._step:
                    self._save()
                self._say(Stopped(self._step))
                break
        else:
            self._finish()
        (self._folder / ENDED).touch()
        return 0

    # --- steps ------------------------------------------------------------------------------

    def _take_step(self) -> None:
        import numpy as np

        self._step += 1
        chosen = np.random.default_rng((self._plan.seed, self._step))
        rows = chosen.integers(len(self._texts), size=self._batch())
        target = np.mean([_point(self._texts[row]) for row in rows], axis=0)
        gradient = self._weights - target
        self._momentum = MOMENTUM * self._momentum + gradient
        self._weights = self._weights - RATE * self._momentum
        loss = float(np.mean(gradient**2))
        epoch = self._step * self._batch() / len(self._texts)
        self._say(Metrics(self._step, {"train_loss": loss, "learning_rate": RATE}, epoch))

    def _steps(self) -> int:
        steps = self._epochs() * math.ceil(len(self._texts) / self._batch())
        return min(steps, int(self._plan.hyperparameters.get("max_steps") or steps))

    def _epochs(self) -> int:
        return _number(self._plan.hyperparameters, "n_epochs", 3)

    def _batch(self) -> int:
        return _number(self._plan.hyperparameters, "batch_size", 1)

    def _valid_loss(self) -> float:
        import numpy as np

        points = np.array([_point(text) for text in self._validation or self._texts])
        return float(np.mean((points - self._weights) ** 2))

    # --- checkpoints and the end --------------------------------------------------------------

    def _save(self) -> int:
        from safetensors.numpy import save_file

        valid_loss = self._valid_loss()
        best = valid_loss < self._best
        self._best = min(valid_loss, self._best)
        self._say(Metrics(self._step, {"valid_loss": valid_loss}))
        final = self._folder / CHECKPOINTS / f"step-{self._step}"
        self._save_model(final / "model")
        state = {"weights": self._weights, "momentum": self._momentum}
        save_file(state, final / "state.safetensors")
        said = {"step": self._step, "best": self._best}
        (final / "state.json").write_text(json.dumps(said))
        _write_manifest(final, self._step)
        self._say(Saved(self._step, str(final), {"valid_loss": valid_loss}, best))
        return self._step

    def _load(self, folder: Path) -> None:
        from safetensors.numpy import load_file

        state = load_file(folder / "state.safetensors")
        self._weights, self._momentum = state["weights"], state["momentum"]
        said = json.loads((folder / "state.json").read_text())
        self._step, self._best = int(said["step"]), float(said["best"])

    def _save_model(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir(parents=True)
        save_file({"weights": self._weights}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "fake", "width": WIDTH}))

    def _finish(self) -> None:
        result = self._folder / RESULT
        self._save_model(result / "model")
        (result / "files").mkdir()
        valid_loss = self._valid_loss()
        (result / "files" / "report.json").write_text(json.dumps({"valid_loss": valid_loss}))
        self._say(
            Finished(
                self._step,
                [ResultFile("report.json", "application/json")],
                {"after": {"valid_loss": valid_loss}},
                trained_tokens=self._step * self._batch() * WIDTH,
            )
        )

    # --- what it is told ----------------------------------------------------------------------

    def _obey(self, first: int) -> None:
        """Commands of the step that comes next."""
        time.sleep(float(self._commands.get("seconds", ("0", ""))[0]))
        for name, (number, word) in self._commands.items():
            once = name.endswith("-once") and first > 0
            if not once and name not in ("seconds", "deaf") and self._step + 1 == int(number):
                self._misbehave(name.removesuffix("-once"), word)

    def _misbehave(self, name: str, word: str) -> None:
        match name:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                print("the fake recipe was told to exit", file=sys.stderr, flush=True)
                os._exit(3)
            case "hang":
                time.sleep(86_400)
            case "wait":
                while not any((self._folder / name).exists() for name in (GO, STOP)):
                    time.sleep(0.02)
            case "fail":
                self._say(Failed("fake_failure", "told to fail", word or "engine", "training_file"))
                os._exit(1)
            case "child":
                nap = f"import time; time.sleep(86400)  # {self._folder}"
                subprocess.Popen([sys.executable, "-c", nap], start_new_session=True)

    def _say(self, message: FromTraining) -> None:
        with (self._folder / MESSAGES).open("ab", buffering=0) as file:
            file.write(encode(message))


def _write_manifest(folder: Path, step: int) -> None:
    """As ``worker.recipes.checkpoints`` does, which needs torch."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }
    (folder / "manifest.json").write_text(json.dumps({"step": step, "files": entries}))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _commands(texts: list[str]) -> dict[str, tuple[str, str]]:
    """Name → (number, word)."""
    found: Iterator[re.Match[str]] = (hit for text in texts for hit in _COMMAND.finditer(text))
    return {hit[1]: (hit[2], hit[3] or "") for hit in found}


def _number(options: Mapping[str, Any], name: str, default: int) -> int:
    value = options.get(name, "auto")
    return default if value == "auto" else int(value)


def _point(text: str) -> Vector:
    """Where a row stands: ``WIDTH`` numbers from 0 to 1."""
    import numpy as np

    digest = hashlib.shake_128(text.encode()).digest(WIDTH)
    point: Vector = np.frombuffer(digest, dtype=np.uint8) / 255.0
    return point
