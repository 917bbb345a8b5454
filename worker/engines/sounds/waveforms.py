"""A picture of a sound: its envelope over time, as a small transparent PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worker.engines.protocol import OutputFile
from worker.engines.sounds.encoding import file_of, fresh_path

if TYPE_CHECKING:
    from PIL.Image import Image

Samples = NDArray[np.float32]

WIDTH, HEIGHT = 1200, 240
"""Pixels."""
_BAR = 4
"""Columns per bar; one of them is the gap."""
_QUIETEST = 0.05
"""A sound with lower peaks is not drawn any larger."""
_INK = (45, 91, 208, 255)
_LINE = (45, 91, 208, 90)


class Envelope:
    """The peaks of a mono stream of known length, one value per bar of the picture."""

    def __init__(self, frames: int, bars: int = WIDTH // _BAR) -> None:
        self._frames = max(1, frames)
        self._bars = bars
        self._place = 0
        self.peaks = np.zeros(bars, np.float32)
        """(bars,) the highest magnitude in each part of the sound."""

    def feed(self, samples: Samples) -> None:
        """(n,) more samples; what comes after ``frames`` counts for the last bar."""
        if len(samples) == 0:
            return
        first = min(self._bars - 1, self._place * self._bars // self._frames)
        last = min(self._bars - 1, (self._place + len(samples) - 1) * self._bars // self._frames)
        starts = -(-np.arange(first + 1, last + 1) * self._frames // self._bars) - self._place
        edges = np.concatenate([[0], starts])
        found = np.maximum.reduceat(np.abs(samples), edges)
        self.peaks[first : last + 1] = np.maximum(self.peaks[first : last + 1], found)
        self._place += len(samples)


def draw_waveform(envelope: Envelope) -> Image:
    """The picture: ``WIDTH`` × ``HEIGHT``, blue bars around a line, on nothing."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGBA", (WIDTH, HEIGHT), (45, 91, 208, 0))
    pen = ImageDraw.Draw(picture)
    middle = HEIGHT / 2
    pen.line([(0, middle), (WIDTH, middle)], fill=_LINE)
    loudest = max(float(envelope.peaks.max()), _QUIETEST)
    unit = WIDTH / len(envelope.peaks)
    for place, peak in enumerate(envelope.peaks / loudest):
        half = max(0.5, float(peak) * (middle - 2))
        left = round(place * unit)
        pen.rectangle((left, middle - half, left + unit - 2, middle + half), fill=_INK)
    return picture


def write_waveform(envelope: Envelope, spool: Path, *, row: str, of: OutputFile) -> OutputFile:
    """Draws the companion picture of a sound file: role ``waveform``, ``speech.waveform.png``."""
    path = fresh_path(spool, ".png")
    draw_waveform(envelope).save(path, format="PNG")
    name = f"{of.name.rpartition('.')[0]}.waveform.png"
    return file_of(
        path,
        row=row,
        name=name,
        role="waveform",
        media_type="image/png",
        parent=of.id,
        width=WIDTH,
        height=HEIGHT,
    )
