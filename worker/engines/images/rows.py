"""Rows of images on their way: a row wants one or more images, each with its own seed."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from shared.specs.images import ImageSpec
from worker.engines.images.batches import Group
from worker.engines.images.previews import preview_steps
from worker.engines.protocol import OutputFile, RowProgress

if TYPE_CHECKING:
    from PIL.Image import Image

SEED_LIMIT = 2**63
DRAWN_SEED_LIMIT = 2**31
"""Seeds that the engine draws are short enough to be read aloud, and survive in JavaScript."""


@dataclass(eq=False, slots=True)
class MadeImage:
    """A finished image and what lies in the spool for it."""

    encoded: bytes | None
    """Kept only for a row that asked for base64."""
    files: list[OutputFile]
    """The image, and its thumbnail where it has one."""
    withheld: bool = False
    """The model's own safety checker painted it over."""


@dataclass(eq=False, slots=True)
class WantedImage:
    """One image of a row: what takes a place in a microbatch."""

    row: ImageRow
    place: int
    """Among the row's images, from 0."""
    steps_done: int = 0
    made: MadeImage | None = None

    @property
    def group(self) -> Group:
        return self.row.group

    @property
    def seed(self) -> int:
        return (self.row.seed + self.place) % SEED_LIMIT


@dataclass(eq=False, slots=True)
class ImageRow:
    """A row in the engine, and all that its result needs."""

    shard: int
    epoch: int
    index: int
    id: str
    spec: ImageSpec
    prompt: str
    group: Group
    seed: int
    input_tokens: int
    warnings: list[str]
    source: Image | None = None
    """RGB, of the size to be made: what an edit or a variation starts from."""
    mask: Image | None = None
    """L, of the same size: white where to edit."""
    adapter_name: str = ""
    """What model and the row's own adapter are called together."""
    adapter_sha256: str = ""
    """Of that adapter's weights; known once they are in force."""
    images: list[WantedImage] = field(default_factory=list)
    steps: int = 0
    """Of the loop, which strength and the scheduler make other than those asked for."""
    previews: list[OutputFile] = field(default_factory=list)
    """Made, and not reported yet."""
    preview_n: int = 0
    told_step: int = 0
    gone: bool = False
    """Cancelled or failed: nothing more is said of it."""

    def __post_init__(self) -> None:
        self.images = [WantedImage(self, place) for place in range(self.spec.n)]
        self.steps = self.group.steps

    @property
    def step(self) -> int:
        """How far the row is: the mean over its images."""
        return sum(image.steps_done for image in self.images) // len(self.images)

    @property
    def finished(self) -> bool:
        return all(image.made is not None for image in self.images)

    def preview_due(self, step: int, total: int) -> bool:
        """Whether to show the row after ``step`` of ``total``; once each, if steps are repeated."""
        due = sorted(preview_steps(total, self.spec.partial_images))
        return not self.gone and step in due[self.preview_n :]

    def isolate(self) -> None:
        """From now on it shares a pipeline call with no other row."""
        self.group = replace(self.group, alone=f"{self.shard}-{self.epoch}-{self.index}")

    def drop(self) -> None:
        """Forgets the row and removes what it left in the spool and nobody has been told of."""
        self.gone = True
        made = [image.made for image in self.images if image.made is not None]
        for file in [*self.previews, *(file for image in made for file in image.files)]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.path)
        self.previews = []

    def news(self) -> list[RowProgress]:
        """What is new since the last call: its previews, or the step it has come to."""
        step, previews = self.step, self.previews
        if not previews and step == self.told_step:
            return []
        self.previews, self.told_step = [], step
        if not previews:
            return [self._progress(step, None)]
        return [self._progress(step, preview) for preview in previews]

    def _progress(self, step: int, preview: OutputFile | None) -> RowProgress:
        return RowProgress(
            self.shard, self.epoch, self.index, step, self.steps, "denoising", preview
        )


def drawn_seed() -> int:
    """For a row that names none; it is reported, so that the images can be made again."""
    return secrets.randbelow(DRAWN_SEED_LIMIT)


def provenance_of(row: ImageRow, seed: int) -> dict[str, Any]:
    """What the row itself says of how an image was made."""
    group = row.group
    return {
        "prompt": row.prompt,
        "negative_prompt": row.spec.negative_prompt,
        "seed": seed,
        "steps": group.steps,
        "guidance": group.guidance,
        "size": f"{group.width}x{group.height}",
        "task": str(group.task),
        "strength": group.strength,
    }
