"""``trials.png``: every trial of a sweep in its order, and the best value so far.

Run as ``python -m worker.recipes.sweep_chart``: it reads ``{"metric", "minimize", "best",
"trials": [{"number", "outcome", "value"}]}`` from its standard input and writes a PNG to its
standard output.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from worker.recipes.loss_chart import HEIGHT, WIDTH, nice_ticks

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

LEFT, TOP, RIGHT, BOTTOM = 110, 90, 40, 90
TEXT, GRID = "#1f2937", "#e5e7eb"
COLOURS = {
    "finished": "#2563eb",
    "pruned": "#d97706",
    "failed": "#dc2626",
    "cancelled": "#6b7280",
}
BEST = "#059669"
DOT = 7
MOST_TICKS = 12
FAR = 3.0
"""A value that is worse than the middle half by so many times its width is drawn at the edge."""

Trial = Mapping[str, Any]
Point = tuple[float, float]


def draw_trials(chart: Mapping[str, Any]) -> bytes:
    """A PNG. Trials without a value are crosses on the bottom line."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    trials = chart["trials"]
    values = [trial["value"] for trial in trials if trial["value"] is not None]
    low, high = bounds(values, minimize=bool(chart["minimize"]))
    place = Places(len(trials), low, high)
    _draw_grid(draw, font, place, str(chart["metric"]))
    _draw_best_so_far(draw, place, best_so_far(trials, minimize=bool(chart["minimize"])))
    for trial in trials:
        _draw_trial(draw, place, trial, best=trial["number"] == chart["best"])
    _draw_legend(
        draw, font, [name for name in COLOURS if any(t["outcome"] == name for t in trials)]
    )
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


class Places:
    """From trials and values to pixels."""

    def __init__(self, trials: int, low: float, high: float) -> None:
        self.trials, self.low, self.high = trials, low, high

    def at(self, number: float, value: float) -> Point:
        across = (number - 0.5) / max(1, self.trials)
        up = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )


def bounds(values: Sequence[float], *, minimize: bool) -> Point:
    """What the chart spans: all values but bad ones that would press the others flat."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    quarter = len(ordered) // 4
    first, third = ordered[quarter], ordered[-1 - quarter]
    reach = FAR * (third - first)
    low, high = ordered[0], ordered[-1]
    if reach and minimize:
        high = max(value for value in ordered if value <= third + reach)
    elif reach:
        low = min(value for value in ordered if value >= first - reach)
    room = 0.08 * (high - low) or max(1e-6, abs(low) * 0.1)
    return low - room, high + room


def best_so_far(trials: Sequence[Trial], *, minimize: bool) -> list[Point]:
    """(number, value) after each finished trial."""
    found: list[Point] = []
    choose = min if minimize else max
    for trial in trials:
        if trial["outcome"] == "finished":
            value = choose([trial["value"], *(value for _, value in found[-1:])])
            found.append((trial["number"], value))
    return found


def _draw_grid(draw: ImageDraw, font: Font, place: Places, metric: str) -> None:
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in nice_ticks(place.low, place.high):
        _, y = place.at(1, value)
        draw.line([(left, y), (right, y)], fill=GRID, width=1)
        draw.text((left - 12, y), f"{value:.4g}", font=font, fill=TEXT, anchor="rm")
    every = -(-place.trials // MOST_TICKS)
    for number in range(1, place.trials + 1, max(1, every)):
        x, _ = place.at(number, place.low)
        draw.line([(x, bottom), (x, bottom + 6)], fill=TEXT, width=2)
        draw.text((x, bottom + 12), str(number), font=font, fill=TEXT, anchor="mt")
    draw.line([(left, TOP), (left, bottom), (right, bottom)], fill=TEXT, width=2)
    draw.text(((left + right) / 2, HEIGHT - 14), "trial", font=font, fill=TEXT, anchor="mb")
    draw.text((20, 20), metric, font=font, fill=TEXT, anchor="lt")


def _draw_best_so_far(draw: ImageDraw, place: Places, points: Sequence[Point]) -> None:
    if not points:
        return
    line = [place.at(*points[0])]
    for number, value in points[1:]:
        x, y = place.at(number, value)
        line += [(x, line[-1][1]), (x, y)]
    line.append((float(WIDTH - RIGHT), line[-1][1]))
    draw.line(line, fill=BEST, width=3)


def _draw_trial(draw: ImageDraw, place: Places, trial: Trial, *, best: bool) -> None:
    colour = COLOURS[trial["outcome"]]
    if trial["value"] is None:
        x, y = place.at(trial["number"], place.low)
        draw.line([(x - DOT, y - DOT), (x + DOT, y + DOT)], fill=colour, width=4)
        draw.line([(x - DOT, y + DOT), (x + DOT, y - DOT)], fill=colour, width=4)
        return
    x, y = place.at(trial["number"], trial["value"])
    box = [x - DOT, y - DOT, x + DOT, y + DOT]
    if trial["outcome"] == "finished":
        draw.ellipse(box, fill=BEST if best else colour)
    else:
        draw.ellipse(box, fill="white", outline=colour, width=3)
    if best:
        draw.ellipse([x - 13, y - 13, x + 13, y + 13], outline=BEST, width=3)


def _draw_legend(draw: ImageDraw, font: Font, outcomes: Sequence[str]) -> None:
    x, y = float(LEFT), float(TOP - 34)
    for words, colour in [*((name, COLOURS[name]) for name in outcomes), ("best so far", BEST)]:
        draw.ellipse([x, y - DOT, x + 2 * DOT, y + DOT], fill=colour)
        draw.text((x + 24, y), words, font=font, fill=TEXT, anchor="lm")
        x += 24 + draw.textlength(words, font=font) + 36


if __name__ == "__main__":
    sys.stdout.buffer.write(draw_trials(json.load(sys.stdin.buffer)))
