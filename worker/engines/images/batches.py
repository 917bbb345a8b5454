"""Which images go through the pipeline together: pure decisions.

Images may share a call when everything that the call takes once, and not per image, is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from worker.engines.images.pipelines import Task
from worker.engines.inflight import Headroom, Limits

AUTO_PIXELS = 4 * 2**20
"""Of a microbatch together, where the catalog names no number of images."""
AUTO_IMAGES = 32
"""Of one lane's part of it, likewise."""
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Group:
    """What images must have in common to share a pipeline call."""

    task: Task
    width: int
    height: int
    steps: int
    guidance: float | None
    negative: bool
    """Whether there is a negative prompt: some models treat none and an empty one differently."""
    strength: float | None = None
    adapter: tuple[str, float] | None = None
    """Name and weight."""
    tuned: str = ""
    """The folder of the rows' own adapter."""
    alone: str = ""
    """The id of a row that shares with nobody, since a call that it was in has failed."""

    @property
    def pixels(self) -> int:
        return self.width * self.height


class Grouped(Protocol):
    @property
    def group(self) -> Group: ...


Image = TypeVar("Image", bound=Grouped)


def next_microbatch(waiting: Sequence[Image], most: Callable[[Group], int]) -> list[Image]:
    """The oldest image and everything behind it that can join it, in order of arrival.

    The oldest always goes first, so no group can starve another.
    """
    if not waiting:
        return []
    group = waiting[0].group
    return [image for image in waiting if image.group == group][: most(group)]


def shares(images: Sequence[Image], lanes: int) -> list[Sequence[Image]]:
    """The images, at least one, in at most ``lanes`` parts of about the same length, in order."""
    size, longer = divmod(len(images), min(lanes, len(images)))
    parts: list[Sequence[Image]] = []
    taken = 0
    while taken < len(images):
        end = taken + size + (len(parts) < longer)
        parts.append(images[taken:end])
        taken = end
    return parts


class Room:
    """How many images fit a microbatch; halved by each out-of-memory, regrown in calm."""

    def __init__(self, microbatch: int | None, lanes: int = 1) -> None:
        """``microbatch`` is the catalog's number of images; None for a number by their size."""
        self._images = microbatch or AUTO_IMAGES * lanes
        pixels = AUTO_PIXELS if microbatch is None else _NO_LIMIT
        self._headroom = Headroom(Limits(pixels, _NO_LIMIT, _NO_LIMIT, 1))

    def images(self, pixels: int) -> int:
        """Of ``pixels`` each."""
        return max(1, min(self._images, self._headroom.now.slots // pixels))

    def shrink(self, images: Iterable[Grouped]) -> None:
        """These together ran out of memory."""
        self._headroom.shrink(sum(image.group.pixels for image in images))

    def calm(self) -> None:
        """A microbatch went well."""
        self._headroom.calm()
