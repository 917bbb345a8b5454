"""What a training says, how often, and what is kept of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from worker.recipes import loss_chart, report_files
from worker.recipes.reporting import Reporter, by_step, read_history, write_csv
from worker.recipes.run import failure
from worker.recipes.shape import RecipeError
from worker.tuning.messages import MESSAGES, Metrics, decode


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _sent(folder: Path) -> list[int]:
    lines = (folder / MESSAGES).read_bytes().splitlines()
    return [m.step for m in map(decode, lines) if isinstance(m, Metrics)]


def test_lines_are_throttled_and_nothing_is_lost(tmp_path: Path) -> None:
    clock = Clock()
    reporter = Reporter(tmp_path, clock=clock)
    for step in range(1, 101):
        clock.now += 0.05
        reporter.metrics(step, step / 10, {"train_loss": 1 / step}, now=step == 99)
    sent = _sent(tmp_path)
    assert sent[0] == 1
    assert 99 in sent
    assert 20 <= len(sent) <= 27
    assert [row["step"] for row in read_history(reporter.history)] == list(range(1, 101))


def test_others_than_the_first_process_are_silent(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path, main=False)
    reporter.note("hello")
    reporter.metrics(1, 0.1, {"train_loss": 1.0}, now=True)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_none_are_left_out_of_messages(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path)
    reporter.metrics(1, 0.1, {"a": float("nan"), "b": float("inf"), "c": 1.0}, now=True)
    message = decode((tmp_path / MESSAGES).read_bytes())
    assert isinstance(message, Metrics)
    assert message.values == {"c": 1.0}


def test_a_history_goes_on_from_a_checkpoints(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    first = Reporter(old)
    for step in range(1, 8):
        first.metrics(step, step, {"train_loss": float(step)})
    with first.history.open("a") as half:
        half.write('{"step": 8, "tra')
    second = Reporter(new)
    second.restore(first.history, 5)
    second.metrics(6, 6, {"train_loss": 60.0})
    told = [(row["step"], row["train_loss"]) for row in read_history(second.history)]
    assert told == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0), (6, 60.0)]


def test_a_tracker_hears_every_step(tmp_path: Path) -> None:
    heard: list[int] = []
    reporter = Reporter(tmp_path)
    reporter.add_tracker(lambda step, values: heard.append(step))
    for step in range(5):
        reporter.metrics(step, 0, {"train_loss": 1.0})
    assert heard == list(range(5))


def test_a_tracker_that_fails_is_dropped(tmp_path: Path) -> None:
    def failing(step: int, values: object) -> None:
        asked.append(step)
        raise ConnectionError("secret address")

    asked: list[int] = []
    reporter = Reporter(tmp_path)
    reporter.add_tracker(failing)
    reporter.metrics(1, 0, {"train_loss": 1.0})
    reporter.metrics(2, 0, {"train_loss": 1.0})
    assert asked == [1]
    said = (tmp_path / MESSAGES).read_text()
    assert "ConnectionError" in said
    assert "secret" not in said


def test_the_table_has_a_column_for_every_name(tmp_path: Path) -> None:
    history = [
        {"step": 0, "epoch": 0, "valid_loss": 3.0},
        {"step": 1, "epoch": 0.5, "train_loss": 2.0},
        {"step": 1, "epoch": 0.5, "valid_loss": 1.0},
    ]
    write_csv(history, tmp_path / "metrics.csv")
    with (tmp_path / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows == [
        {"step": "0", "epoch": "0", "valid_loss": "3.0", "train_loss": ""},
        {"step": "1", "epoch": "0.5", "valid_loss": "1.0", "train_loss": "2.0"},
    ]
    assert by_step(history)[1] == {"step": 1, "epoch": 0.5, "train_loss": 2.0, "valid_loss": 1.0}


def test_surprises_are_told_by_their_kind_only() -> None:
    found = failure(ValueError("the tenant's words"))
    assert (found.code, found.blame) == ("internal_error", "engine")
    assert "words" not in json.dumps([found.message, found.param])
    assert failure(MemoryError()).code == "out_of_memory"
    assert failure(OSError(28, "No space left")).code == "disk_full"
    named = failure(RecipeError("a", "b", "data", "c"))
    assert (named.code, named.message, named.blame, named.param) == ("a", "b", "data", "c")


def test_torchs_cpu_allocator_is_recognised() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert failure(caught.value).code == "out_of_memory"


# --- the chart and the tables -----------------------------------------------------------------


def test_the_chart_shows_losses_once() -> None:
    rows = [
        {"step": 0, "valid_loss": 3.0, "full_valid_loss": 3.0, "train_loss": float("nan")},
        {"step": 1, "valid_loss": 2.0, "full_valid_loss": 2.0, "train_loss": 2.5, "grad_norm": 9},
    ]
    assert loss_chart.loss_series(rows) == {
        "train_loss": [(1.0, 2.5)],
        "valid_loss": [(0.0, 3.0), (1.0, 2.0)],
    }


@pytest.mark.parametrize(
    ("low", "high", "first", "last"), [(0, 1, 0, 1), (0.31, 0.95, 0.4, 0.8), (0, 1234, 0, 1000)]
)
def test_ticks_are_round(low: float, high: float, first: float, last: float) -> None:
    ticks = loss_chart.nice_ticks(low, high)
    assert (ticks[0], ticks[-1]) == pytest.approx((first, last))
    assert 3 <= len(ticks) <= 12


def test_a_chart_is_drawn_of_anything(tmp_path: Path) -> None:
    from PIL import Image

    empty = tmp_path / "empty.png"
    loss_chart.draw_losses([], empty, promoted=0)
    flat = tmp_path / "flat.png"
    loss_chart.draw_losses([{"step": 1, "train_loss": 0.0}], flat, promoted=1)
    curve = tmp_path / "curve.png"
    rows = [{"step": step, "train_loss": 5 / (step + 1), "valid_loss": 2.0} for step in range(200)]
    loss_chart.draw_losses(rows, curve, promoted=150)
    drawn = Image.open(curve).convert("RGB")
    assert drawn.size == (loss_chart.WIDTH, loss_chart.HEIGHT)
    colours = {colour for _, colour in drawn.getcolors(maxcolors=2**24) or []}
    assert {(0x25, 0x63, 0xEB), (0xDC, 0x26, 0x26)} <= colours
    plain = {colour for _, colour in Image.open(empty).convert("RGB").getcolors(2**24) or []}
    assert (0x25, 0x63, 0xEB) not in plain


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1234567, "1,234,567"), (0.00002, "2e-05"), (3.14159, "3.142"), (True, "True")],
)
def test_numbers_in_tables(value: float, shown: str) -> None:
    assert report_files.number(value) == shown
