"""The pipelines that are let in, by the class that a model's index names, and what each needs.

A closed list: every one of them can be held after a denoising step, takes a seed and leaves the
encoding to us.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Pipelines of one architecture."""

    text: str
    """The class that makes a video from a text."""
    image: str | None
    """The one that continues a picture; None for an architecture without."""
    shared: bool
    """Whether the same weights serve both."""
    frame_multiple: int
    """A video has a multiple of this many frames and one more; 1 is for any number."""
    side_multiple: int
    size: tuple[int, int]
    """(width, height) that the models were made for."""
    frames: int
    fps: int


FAMILIES = (
    Family("WanPipeline", "WanImageToVideoPipeline", False, 4, 16, (832, 480), 81, 16),
    Family("LTXPipeline", "LTXImageToVideoPipeline", True, 8, 32, (704, 512), 121, 24),
    Family("CogVideoXPipeline", "CogVideoXImageToVideoPipeline", False, 4, 16, (720, 480), 49, 8),
    Family(
        "HunyuanVideoPipeline", "HunyuanVideoImageToVideoPipeline", False, 4, 16, (960, 544), 97, 24
    ),
    Family(
        "SkyReelsV2Pipeline", "SkyReelsV2ImageToVideoPipeline", False, 4, 16, (960, 544), 97, 24
    ),
    Family("MochiPipeline", None, False, 6, 16, (848, 480), 85, 30),
    Family("AnimateDiffPipeline", None, False, 1, 8, (512, 512), 16, 8),
)

NEED_FTFY = frozenset(
    {"WanImageToVideoPipeline", "SkyReelsV2Pipeline", "SkyReelsV2ImageToVideoPipeline"}
)
"""Classes that clean prompts with the package ftfy, and fail at their first prompt without it."""


def family_of(class_name: str) -> Family | None:
    """The family that a pipeline class belongs to; None for one that isn't let in."""
    for family in FAMILIES:
        if class_name in (family.text, family.image):
            return family
    return None


def whole_frames(wanted: float, family: Family) -> int:
    """The number of frames nearest to ``wanted`` that the family can make, at least two."""
    step = family.frame_multiple
    if step == 1:
        return max(2, round(wanted))
    return max(1, round((wanted - 1) / step)) * step + 1
