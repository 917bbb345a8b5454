"""The pictures beside the model card: the contact sheet, the references, the loss curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_COLUMNS = 10
_LABEL_HEIGHT, _LABEL_SIZE = 30, 12
_MARGIN = 4
_INK, _PALE, _LINE = "#222222", "#bbbbbb", "#0a6ebd"
_PANEL_WIDTH, _PANEL_HEIGHT, _PANEL_EDGE = 640, 240, 48


def write_sheet(path: Path, pictures: torch.Tensor, labels: Sequence[str] | None = None) -> None:
    """A grid of ten columns of ``pictures`` (uint8, (n, 3, pixels, pixels)), labels below each."""
    from PIL import Image, ImageDraw

    pixels = pictures.shape[-1]
    width, height = pixels + _MARGIN, pixels + _MARGIN + (_LABEL_HEIGHT if labels else 0)
    rows = math.ceil(len(pictures) / _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        left, top = index % _COLUMNS * width, index // _COLUMNS * height
        sheet.paste(to_image(picture), (left, top))
        if labels:
            _write_label(pen, labels[index], left + pixels / 2, top + pixels, pixels)
    # 256 colours are plenty for flat drawings, and a third of the bytes.
    sheet.quantize(256).save(path, optimize=True)


def _write_label(pen: ImageDraw.ImageDraw, text: str, middle: float, top: float, room: int) -> None:
    """One line, or two when the words don't fit."""
    from PIL import ImageFont

    font = ImageFont.load_default(_LABEL_SIZE)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= room or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    shown = "\n".join(lines[:2])
    pen.multiline_text((middle, top), shown, _INK, font, anchor="ma", align="center", spacing=1)


def to_image(picture: torch.Tensor) -> Image.Image:
    """A picture of uint8 (3, height, width) as Pillow's."""
    from PIL import Image

    return Image.fromarray(picture.permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class Curve:
    """The loss of a training at every step, and what to call it."""

    title: str
    losses: torch.Tensor


def write_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Draws each curve in a panel of its own: steps to the right, loss upwards, logarithmic."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (_PANEL_WIDTH, _PANEL_HEIGHT * len(curves)), "white")
    pen = ImageDraw.Draw(picture)
    for number, curve in enumerate(curves):
        _draw_panel(pen, curve, number * _PANEL_HEIGHT)
    picture.quantize(64).save(path, optimize=True)


def _draw_panel(pen: ImageDraw.ImageDraw, curve: Curve, top: int) -> None:
    left, right = _PANEL_EDGE, _PANEL_WIDTH - 16
    ceiling, floor = top + 36, top + _PANEL_HEIGHT - 28
    values = smoothed(curve.losses, right - left).clamp(min=1e-8).log()
    low, high = values.min().item(), values.max().item()
    span = max(high - low, 1e-6)
    heights = (floor - (values - low) / span * (floor - ceiling)).tolist()
    stretch = (right - left) / max(len(heights) - 1, 1)
    pen.line([(left, ceiling), (left, floor), (right, floor)], fill=_PALE)
    pen.line([(left + x * stretch, y) for x, y in enumerate(heights)], fill=_LINE, width=2)
    pen.text((left, top + 10), curve.title, fill=_INK)
    pen.text((4, ceiling - 6), f"{math.exp(high):.3f}", fill=_INK)
    pen.text((4, floor - 6), f"{math.exp(low):.3f}", fill=_INK)
    pen.text((right, floor + 6), f"step {len(curve.losses)}", fill=_INK, anchor="ra")


def smoothed(losses: torch.Tensor, points: int) -> torch.Tensor:
    """At most ``points`` means of equally many neighbouring steps each."""
    size = math.ceil(len(losses) / points)
    return torch.stack([part.mean() for part in losses.split(size)])
