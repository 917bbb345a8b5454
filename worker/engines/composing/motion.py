"""Slow camera moves over a still picture. Pure."""

from __future__ import annotations

from shared.specs.videos import Motion

OVERSCAN = 1.2
"""How much larger than the frame a picture is prepared, so that a zoom finds real pixels."""
_SPEED = 0.018
"""Part of the picture that a move covers in a second."""
_LEAST, _MOST = 0.04, 0.15
_AUTO: tuple[Motion, ...] = ("zoom_in", "pan_right", "zoom_out", "pan_left", "zoom_in", "pan_up")

Box = tuple[float, float, float, float]


def chosen_motion(motion: Motion, scene: int) -> Motion:
    """What ``auto`` means for a scene: neighbours move differently, the same each time."""
    return _AUTO[scene % len(_AUTO)] if motion == "auto" else motion


def seen(motion: Motion, progress: float, seconds: float, size: tuple[int, int]) -> Box:
    """The part (left, top, right, bottom) of a picture of ``size`` that the frame shows, in
    fractions of pixels, so that a slow move has no steps. It never leaves the picture."""
    reach = min(_MOST, max(_LEAST, _SPEED * seconds))
    part, x, y = 1.0, 0.5, 0.5
    match motion:
        case "zoom_in":
            part, y = 1.0 - reach * progress, 0.46
        case "zoom_out":
            part, y = 1.0 - reach * (1.0 - progress), 0.46
        case "pan_right":
            part, x = 1.0 - reach, progress
        case "pan_left":
            part, x = 1.0 - reach, 1.0 - progress
        case "pan_up":
            part, y = 1.0 - reach, 1.0 - progress
    width, height = size[0] * part, size[1] * part
    left, top = (size[0] - width) * x, (size[1] - height) * y
    return left, top, left + width, top + height
