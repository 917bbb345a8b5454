"""Fetching a tuned model's files: patient with the store, and plain about everything else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.db.models import Model
from shared.errors import NotFound, StorageUnavailable
from worker import reading
from worker.inputs import Leaving
from worker.model_paths import ModelDamaged
from worker.reading import Reader
from worker.serving import Unservable

MODEL = Model("ft:m", "text", "text", "", [], {}, "a", 0)


class Files:
    """Answers in turn; the last answer again and again."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    def local(self, model: Model, leaving: Callable[[], bool]) -> Path:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer
        return Path("/models")


def fetch(files: Files, leaving: threading.Event | None = None) -> None:
    nothing: Any = None
    chosen: Any = files
    leaving = leaving or threading.Event()
    Reader(nothing, nothing, nothing, nothing, leaving, files=chosen).fetch(MODEL)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "delays", lambda **_: iter([0.0] * 50))


def test_an_outage_is_waited_for() -> None:
    files = Files(StorageUnavailable("away"), StorageUnavailable("away"), None)
    fetch(files)
    assert files.asked == 3


def test_an_outage_that_lasts_is_another_workers_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_PATIENCE_SECONDS", 0.0)
    with pytest.raises(Unservable) as refused:
        fetch(Files(StorageUnavailable("away")))
    assert (refused.value.code, refused.value.passing) == ("storage_unavailable", True)


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotFound("no object"), "model_not_found"), (ModelDamaged("x.bin"), "model_damaged")],
)
def test_files_that_are_gone_or_damaged_fail_the_rows(error: Exception, code: str) -> None:
    files = Files(error)
    with pytest.raises(Unservable) as refused:
        fetch(files)
    assert (refused.value.code, refused.value.passing) == (code, False)
    assert "ft:m" in refused.value.message
    assert files.asked == 1


def test_a_worker_that_leaves_waits_for_no_store() -> None:
    leaving = threading.Event()
    leaving.set()
    with pytest.raises(Leaving):
        fetch(Files(StorageUnavailable("away")), leaving)
