"""Measuring and making smaller without models, for tests of everything around them.

A model's numbers follow from its name, unless texts of the examples say otherwise::

    [[value NAME 0.5]]    what is measured of that model, whatever is asked for
    [[after 0.5]]         … of the model that an optimisation makes
    [[wait 1]]            waits for ``go``, or to be asked to stop
    [[crash 1]]           kill -9 of itself
    [[fail 1 data]]       ``Failed`` with that blame
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from shared.specs.model_jobs import METRICS
from worker.recipes.fake import GO
from worker.recipes.optimizing_verdict import as_markdown, notes_on, refusal
from worker.recipes.reporting import Reporter
from worker.tuning.messages import (
    DATA,
    RESULT,
    STOP,
    VALIDATION_DATA,
    Failed,
    Finished,
    Plan,
    Progressed,
    ResultFile,
    Started,
    Stopped,
    read_plan,
)

_COMMAND = re.compile(r"\[\[(value|after|wait|crash|fail) ([^\s\]]+)(?: ([^\s\]]+))?\]\]")
_WAIT_SECONDS = 0.02


class _FakeStory:
    def __init__(self, folder: Path) -> None:
        self.folder, self.plan, self.reporter = folder, read_plan(folder), Reporter(folder)
        text = (folder / DATA / VALIDATION_DATA).read_text(encoding="utf-8")
        self.examples = text.count("\n")
        self.commands = _COMMAND.findall(text)

    def begin(self) -> bool:
        """Whether it may go on: commands that end it are obeyed here."""
        self.reporter.send(Started(1, engine="fake", detail={"examples": self.examples}))
        for name, first, second in self.commands:
            if name == "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "fail":
                self.reporter.send(Failed("told_to", f"told to fail at {first}", second))
                return False
            if name == "wait" and not self._wait():
                self.reporter.send(Stopped(0))
                return False
        return True

    def _wait(self) -> bool:
        while not (self.folder / GO).exists():
            if (self.folder / STOP).exists():
                return False
            self.reporter.send(Progressed(0))
            time.sleep(_WAIT_SECONDS)
        return True

    def values(self, name: str) -> dict[str, float]:
        told = [
            float(value) for kind, model, value in self.commands if (kind, model) == ("value", name)
        ]
        share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
        values = dict.fromkeys(METRICS[self.plan.measured_as], round(share, 6))
        return values | ({self.plan.metric: told[-1]} if told else {})


def evaluate(folder: Path) -> int:
    """The whole evaluation; returns the exit code."""
    story = _FakeStory(folder)
    if not story.begin():
        return 0
    found = [
        {
            "model": subject.name,
            "values": story.values(subject.name),
            "tokens": story.examples,
            "examples": story.examples,
            "seconds": 0.0,
        }
        for subject in story.plan.subjects
    ]
    tokens = story.examples * len(found)
    story.reporter.send(Finished(1, [], {"models": found}, tokens))
    return 0


def optimize(folder: Path) -> int:
    """The whole optimisation: the model is a file that says what was asked for."""
    story = _FakeStory(folder)
    if not story.begin():
        return 0
    table = _table(story)
    plan = story.plan
    assert plan.optimization is not None  # noqa: S101 - a plan of an optimisation says how
    verdict = refusal(
        plan.metric,
        table["quality"][plan.metric],
        goes_up=plan.goes_up,
        most=plan.optimization.max_drop,
    )
    _write(folder, plan, table, verdict)
    files = [ResultFile("report.md", "text/markdown")]
    story.reporter.send(Finished(1, files, {"table": table, "refused": verdict}, story.examples))
    return 0


def _table(story: _FakeStory) -> dict[str, Any]:
    plan = story.plan
    assert plan.optimization is not None  # noqa: S101 - a plan of an optimisation says how
    before = story.values(plan.subjects[0].name)
    after = [float(first) for kind, first, _ in story.commands if kind == "after"]
    return {
        "method": plan.optimization.method,
        "made_of": plan.subjects[0].name,
        "metric": plan.metric,
        "max_drop": plan.optimization.max_drop,
        "examples": story.examples,
        "costs": {"disk_bytes": {"before": 200, "after": 100}},
        "quality": {
            name: {"before": value, "after": after[-1] if after else value}
            for name, value in before.items()
        },
        "notes": notes_on(plan.optimization.method),
    }


def _write(folder: Path, plan: Plan, table: dict[str, Any], verdict: str | None) -> None:
    for part in ("model", "files"):
        (folder / RESULT / part).mkdir(parents=True)
    told = json.dumps({"method": table["method"]})
    (folder / RESULT / "model" / "config.json").write_text(told, encoding="utf-8")
    report = as_markdown(plan.model, table, verdict)
    (folder / RESULT / "files" / "report.md").write_text(report, encoding="utf-8")
