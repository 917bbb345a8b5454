"""A script cut into scenes: a few sentences each, and never more scenes than a video may have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.plans.texts import sentences
from shared.specs.videos import MAX_SCENES

SCENE_CHARACTERS = 240
"""About sixteen seconds of speech: as long as one moving picture holds the eye."""


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What is said over which picture; both may be missing, not together."""

    text: str
    picture: int | None = None
    """Place in the list of given pictures, from 0."""


def cut(script: str) -> list[str]:
    """The script as at most ``MAX_SCENES`` texts of whole sentences. Empty for a blank script."""
    spoken = sentences(script)
    wanted = max(1, math.ceil(sum(map(len, spoken)) / SCENE_CHARACTERS))
    return [" ".join(group) for group in _spread(spoken, min(wanted, MAX_SCENES)) if group]


def cut_for_pictures(script: str, pictures: int) -> list[ScenePlan]:
    """Scenes that show every given picture in order, each over its share of the script.

    A long share is cut into several scenes of the same picture; a picture for which no sentence
    is left is shown without words.
    """
    groups = _spread(sentences(script), pictures)
    spare = MAX_SCENES - pictures
    plans: list[ScenePlan] = []
    for number, group in enumerate(groups):
        wanted = max(1, math.ceil(sum(map(len, group)) / SCENE_CHARACTERS))
        parts = min(wanted, 1 + spare, max(1, len(group)))
        spare -= parts - 1
        plans += [ScenePlan(" ".join(part), number) for part in _spread(group, parts)]
    return plans


def _spread(spoken: Sequence[str], groups: int) -> list[list[str]]:
    """The sentences in ``groups`` runs of about the same length; trailing ones may be empty."""
    spread: list[list[str]] = []
    left = list(spoken)
    for remaining in range(groups, 0, -1):
        share = sum(map(len, left)) / remaining
        run: list[str] = []
        length = 0.0
        while left and (remaining == 1 or not run or length + len(left[0]) / 2 <= share):
            length += len(left[0])
            run.append(left.pop(0))
            if remaining > 1 and len(left) < remaining:
                break
        spread.append(run)
    return spread
