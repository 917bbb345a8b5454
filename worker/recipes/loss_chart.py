"""``loss.png``: the losses of a training over its steps, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

WIDTH, HEIGHT = 1200, 720
_LEFT, _TOP, _RIGHT, _BOTTOM = 110, 60, 40, 90
_COLOURS = ("#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706", "#475569")
_TEXT, _GRID = "#1f2937", "#e5e7eb"
_MOST_SERIES = len(_COLOURS)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axes:
    """From numbers to pixels."""

    steps: float
    low: float
    high: float

    def at(self, point: Point) -> Point:
        across = point[0] / max(1.0, self.steps)
        up = (point[1] - self.low) / (self.high - self.low)
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM),
        )


def draw_losses(rows: Sequence[Mapping[str, Any]], path: Path, *, promoted: int) -> None:
    """Every number called a loss, over the steps; validation with dots, and a line where the
    delivered weights are from."""
    from PIL import Image, ImageDraw, ImageFont

    series = loss_series(rows)
    axes = _axes(series.values())
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    _draw_grid(draw, font, axes)
    x, top = axes.at((promoted, axes.high))
    draw.line([(x, top), (x, HEIGHT - _BOTTOM)], fill="#9ca3af", width=2)
    for (name, points), colour in zip(series.items(), _COLOURS, strict=False):
        _draw_series(draw, axes, points, colour, measured=not name.startswith("train"))
    _draw_legend(draw, font, list(series))
    beside = ("ra", x - 6) if x > WIDTH / 2 else ("la", x + 6)
    draw.text((beside[1], top + 4), "delivered", font=font, fill="#6b7280", anchor=beside[0])
    image.save(path, optimize=True)


def loss_series(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """Points by name, finite ones only; the same curve is not drawn under a second name."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.items():
            if "loss" in name and math.isfinite(value):
                found.setdefault(name, []).append((float(row["step"]), float(value)))
    apart: dict[str, list[Point]] = {}
    for name in sorted(found, key=lambda name: (not name.startswith("train_loss"), name)):
        short = name.removeprefix("full_")
        if short == name or short not in found:
            apart[name] = found[name]
    return dict(list(apart.items())[:_MOST_SERIES])


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """A moving mean over about a thirtieth of the points, looking back only."""
    width = max(1, len(points) // 30)
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    return [
        (step, (sums[at + 1] - sums[max(0, at + 1 - width)]) / min(width, at + 1))
        for at, (step, _) in enumerate(points)
    ]


def _axes(series: Iterable[Sequence[Point]]) -> Axes:
    points = [point for one in series for point in one]
    if not points:
        return Axes(1.0, 0.0, 1.0)
    values = sorted(value for _, value in points)
    # A first loss that is far out must not press the rest flat.
    high = (
        min(values[-1], 3 * values[int(0.95 * (len(values) - 1))]) if values[0] >= 0 else values[-1]
    )
    low = min(0.0, values[0])
    if values[0] > 0.5 * high:
        low = values[0] - 0.1 * (high - values[0])
    room = (high - low) * 0.05 or max(1e-6, abs(high) * 0.1)
    return Axes(max(step for step, _ in points), low, high + room)


def _draw_grid(draw: ImageDraw, font: Font, axes: Axes) -> None:
    left, right, bottom = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for value in nice_ticks(axes.low, axes.high):
        _, y = axes.at((0, value))
        draw.line([(left, y), (right, y)], fill=_GRID, width=1)
        draw.text((left - 12, y), f"{value:.3g}", font=font, fill=_TEXT, anchor="rm")
    for step in nice_ticks(0, max(1.0, axes.steps), 8):
        if step == int(step):
            x, _ = axes.at((step, axes.low))
            draw.line([(x, bottom), (x, bottom + 6)], fill=_TEXT, width=2)
            draw.text((x, bottom + 12), f"{int(step):,}", font=font, fill=_TEXT, anchor="mt")
    draw.line([(left, _TOP), (left, bottom), (right, bottom)], fill=_TEXT, width=2)
    draw.text(((left + right) / 2, HEIGHT - 14), "step", font=font, fill=_TEXT, anchor="mb")
    draw.text((left, _TOP - 40), "loss", font=font, fill=_TEXT, anchor="mt")


def _draw_series(
    draw: ImageDraw, axes: Axes, points: Sequence[Point], colour: str, *, measured: bool
) -> None:
    def shown(chosen: Sequence[Point]) -> list[Point]:
        return [axes.at((step, min(value, axes.high))) for step, value in chosen]

    if not measured:
        pale = "#bfdbfe" if colour == _COLOURS[0] else "#d1d5db"
        draw.line(shown(points), fill=pale, width=1)
    line = shown(points if measured else smoothed(points))
    draw.line(line, fill=colour, width=3, joint="curve")
    if measured:
        for x, y in line:
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=colour)


def _draw_legend(draw: ImageDraw, font: Font, names: Sequence[str]) -> None:
    x = float(_LEFT + 120)
    for name, colour in zip(names, _COLOURS, strict=False):
        words = name.replace("_", " ")
        draw.line([(x, _TOP - 30), (x + 34, _TOP - 30)], fill=colour, width=4)
        draw.text((x + 44, _TOP - 30), words, font=font, fill=_TEXT, anchor="lm")
        x += 44 + draw.textlength(words, font=font) + 36
