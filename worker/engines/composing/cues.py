"""Captions: sentences cut into what two lines hold, timed, and written as WebVTT. Pure but for
the measure of a font."""

from __future__ import annotations

import html
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.specs.videos import Caption

MOST_LINES = 2
_LEAST_SECONDS = 0.8
"""A cue stays for this long, unless the next one comes first."""
_GAP_SECONDS = 0.35
"""A shorter gap is closed, so that the box doesn't flicker."""

Break = Callable[[str], Sequence[str]]
"""Cuts a text into lines that fit the frame."""


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines that are shown together, in seconds from the start of the video."""

    lines: tuple[str, ...]
    start: float
    end: float


def cues_of(captions: Sequence[Caption], at: float, until: float, cut: Break) -> list[Cue]:
    """The cues of one scene that is on the screen from ``at`` to ``until``. They never overlap."""
    pieces = [cue for caption in captions for cue in _cut(caption, at, cut)]
    pieces.sort(key=lambda cue: cue.start)
    settled = []
    for number, cue in enumerate(pieces):
        following = pieces[number + 1].start if number + 1 < len(pieces) else until
        end = max(cue.end, cue.start + _LEAST_SECONDS)
        if following - end < _GAP_SECONDS:
            end = following
        end = min(end, following, until)
        if end > cue.start:
            settled.append(Cue(cue.lines, cue.start, end))
    return settled


def _cut(caption: Caption, at: float, cut: Break) -> list[Cue]:
    """One sentence as one cue or several, timed by their letters."""
    lines = list(cut(caption.text))
    groups = [tuple(lines[i : i + MOST_LINES]) for i in range(0, len(lines), MOST_LINES)]
    letters = [sum(map(len, group)) for group in groups]
    length = max(0.0, caption.end - caption.start)
    cues, said = [], 0
    for group, count in zip(groups, letters, strict=True):
        start = at + caption.start + length * said / sum(letters)
        said += count
        cues.append(Cue(group, start, at + caption.start + length * said / sum(letters)))
    return cues


class Shown:
    """Finds the cue of a moment. ``cues`` are in order and don't overlap."""

    def __init__(self, cues: Sequence[Cue]) -> None:
        self._cues = cues
        self._starts = [cue.start for cue in cues]

    def at(self, seconds: float) -> Cue | None:
        place = bisect_right(self._starts, seconds) - 1
        if place < 0 or seconds >= self._cues[place].end:
            return None
        return self._cues[place]


def web_vtt(cues: Sequence[Cue]) -> str:
    """A WebVTT file."""
    blocks = [
        f"{number}\n{_clock(cue.start)} --> {_clock(cue.end)}\n"
        + "\n".join(html.escape(line, quote=False) for line in cue.lines)
        for number, cue in enumerate(cues, 1)
    ]
    return "\n\n".join(["WEBVTT", *blocks]) + "\n"


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"
