"""Which shot is on the screen at which frame. Pure.

A shot is on the screen for as long as its scene is heard. A transition takes the last moments of
the shot before, so the picture is whole when its narration begins, and nothing shifts in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BREATH_SECONDS = 0.5
"""Silence after a narration before the next scene begins."""
TRANSITION_SECONDS = 0.6


@dataclass(frozen=True, slots=True)
class Shot:
    """A scene's place in the video, in frames."""

    scene: int
    start: int
    end: int
    """The first frame that is no longer its own."""
    lead: int
    """How many frames before ``start`` it begins to appear, over the end of the shot before."""

    def progress(self, frame: int) -> float:
        """How far the shot is, 0 at its first appearance, 1 at its last frame."""
        first = self.start - self.lead
        return (frame - first) / max(1, self.end - 1 - first)


@dataclass(frozen=True, slots=True)
class Moment:
    """What one frame shows."""

    frame: int
    shot: Shot
    coming: Shot | None = None
    """The next shot, while a transition to it runs."""
    mix: float = 0.0
    """How much of ``coming`` is seen, over 0 and under 1, eased."""


class Timeline:
    """All shots of a video, end to end."""

    def __init__(self, seconds: Sequence[float], fps: int, *, changes: Sequence[bool]) -> None:
        """``seconds`` of each scene; ``changes[i]`` is whether a transition leads to scene
        ``i + 1``. Every scene gets at least one frame."""
        bounds, elapsed = [0], 0.0
        for length in seconds:
            elapsed += length
            bounds.append(max(bounds[-1] + 1, round(elapsed * fps)))
        longest = round(TRANSITION_SECONDS * fps)
        shots = [Shot(0, 0, bounds[1], 0)]
        for scene, (start, end) in enumerate(pairwise(bounds[1:]), 1):
            before = shots[-1]
            room = min(before.end - before.start, end - start) // 2
            lead = min(longest, room) if changes[scene - 1] else 0
            shots.append(Shot(scene, start, end, lead))
        self.shots = shots
        self.fps = fps

    @property
    def frame_n(self) -> int:
        return self.shots[-1].end

    @property
    def seconds(self) -> float:
        return self.frame_n / self.fps

    def moments(self) -> list[Moment]:
        """One per frame, in order."""
        return [
            self._moment(frame, shot)
            for shot in self.shots
            for frame in range(shot.start, shot.end)
        ]

    def _moment(self, frame: int, shot: Shot) -> Moment:
        if shot.scene + 1 == len(self.shots):
            return Moment(frame, shot)
        coming = self.shots[shot.scene + 1]
        into = frame - (coming.start - coming.lead)
        if into < 0:
            return Moment(frame, shot)
        return Moment(frame, shot, coming, eased((into + 1) / (coming.lead + 1)))


def eased(part: float) -> float:
    """0..1 to 0..1, slow at both ends; what lies outside is clipped."""
    part = min(1.0, max(0.0, part))
    return part * part * (3.0 - 2.0 * part)
