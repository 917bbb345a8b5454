"""The pictures that a recipe learns from, as tensors of one size."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shared.errors import PressrunError
from worker.engines.pictures import decode_picture, fit
from worker.recipes.shape import RecipeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from worker.engines.samplers.manifest import Manifest
    from worker.recipes.context import Context

SIDES = (8, 64)
"""Where ``image_size="auto"`` ends up: what is larger takes a GPU, and must be asked for."""
SIDE_STEP = 4
"""Every side is a multiple of it, so that networks can halve it twice."""
MAX_BYTES = 4 * 2**30
"""Of the decoded pictures of a training, which are held in memory."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """One split. ``pixels`` is uint8 (n, channels, side, side), ``classes`` int64 (n,): class
    numbers, all 0 where nothing is labelled."""

    pixels: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Float pixels of -1..1 and class numbers."""
        chosen = torch.as_tensor(list(rows))
        return scaled(self.pixels[chosen]).to(device), self.classes[chosen].to(device)


@dataclass(frozen=True, slots=True)
class PictureData:
    """Both splits, and what they have in common."""

    train: Pictures
    validation: Pictures
    classes: list[str]
    """Empty where nothing is labelled."""
    side: int
    channels: int
    """1 when every picture is grey, else 3."""


def scaled(pixels: Tensor) -> Tensor:
    """uint8 as floats of -1..1."""
    return pixels.float().div_(127.5).sub_(1)


def load_pictures(context: Context, *, base: Manifest | None = None) -> PictureData:
    """Everything below the data folder, as the base model draws it where there is one. Decides
    ``image_size``. Raises RecipeError that blames data or request."""
    rows = {"train": context.train_rows(), "validation": context.validation_rows()}
    side = chosen_side(context, rows["train"], None if base is None else base.image_size)
    context.hyperparameters = context.hyperparameters.deciding(image_size=side)
    number = sum(map(len, rows.values()))
    if number * 3 * side * side > MAX_BYTES:
        raise RecipeError(
            "too_many_pictures",
            f"{number} pictures of {side} pixels a side are more than a training can hold",
            "data",
            "training_file",
        )
    classes = _classes(context, rows["train"], base)
    split = {name: _read(context.data, found, side) for name, found in rows.items()}
    grey = all(_is_grey(pixels) for pixels in split.values())
    channels = (1 if grey else 3) if base is None else base.channels
    made = {
        name: Pictures(_with_channels(split[name], channels), _numbers(rows[name], classes))
        for name in rows
    }
    return PictureData(made["train"], made["validation"], classes, side, channels)


def chosen_side(
    context: Context, rows: Sequence[Mapping[str, Any]], of_base: int | None = None
) -> int:
    """Pixels a side: the base model's, the one asked for, or the median of the pictures' own,
    within ``SIDES``. Raises RecipeError ``invalid_image_size``."""
    asked = context.hyperparameters.image_size
    if asked is not None and of_base is not None and asked != of_base:
        raise _bad_size(f"the base model draws {of_base} pixels a side")
    if asked is not None and asked % SIDE_STEP:
        raise _bad_size(f"image_size must be a multiple of {SIDE_STEP}")
    if asked is not None or of_base is not None:
        return asked or of_base or 0
    median = statistics.median(_short_side(context.data / row["image"]) for row in rows)
    return min(SIDES[1], max(SIDES[0], int(median) // SIDE_STEP * SIDE_STEP))


def _bad_size(why: str) -> RecipeError:
    return RecipeError("invalid_image_size", why, "request", "hyperparameters.image_size")


def read_picture(path: Path, width: int, height: int) -> Image:
    """RGB, scaled to cover the size; what shows through transparency is white."""
    from PIL import Image

    try:
        picture = decode_picture(path, param=None)
    except (PressrunError, OSError) as error:
        raise RecipeError("unreadable_picture", f"{path.name}: {error}", "data") from error
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return fit(picture.convert("RGB"), (width, height))


def to_tensor(picture: Image) -> Tensor:
    """uint8 (3, height, width)."""
    import numpy as np

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _short_side(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as picture:
        return min(picture.size)


def _classes(
    context: Context, rows: Sequence[Mapping[str, Any]], base: Manifest | None
) -> list[str]:
    named = {str(row["label"]) for row in rows if row.get("label") is not None}
    if named and any(row.get("label") is None for row in rows):
        raise RecipeError(
            "labels_missing",
            "some pictures have a label and others have none: label all or none",
            "data",
            "training_file",
        )
    classes = sorted(named | set(context.plan.labels)) if named else []
    if base is None or base.classes == classes:
        return classes
    if not named <= set(base.classes) or not (named or not base.classes):
        raise RecipeError(
            "labels_mismatch",
            "the labels are not those of the base model, which are: "
            + (", ".join(base.classes[:50]) or "none"),
            "data",
            "training_file",
        )
    return list(base.classes)


def _numbers(rows: Sequence[Mapping[str, Any]], classes: list[str]) -> Tensor:
    places = {name: place for place, name in enumerate(classes)}
    try:
        found = [places[str(row["label"])] if classes else 0 for row in rows]
    except KeyError:
        raise RecipeError(
            "unknown_label",
            "a picture has a label that the model does not know",
            "data",
            "validation_file",
        ) from None
    return torch.tensor(found, dtype=torch.int64)


def _read(folder: Path, rows: Sequence[Mapping[str, Any]], side: int) -> Tensor:
    pixels = torch.empty((len(rows), 3, side, side), dtype=torch.uint8)
    for place, row in enumerate(rows):
        pixels[place] = to_tensor(read_picture(folder / row["image"], side, side))
    return pixels


def _is_grey(pixels: Tensor) -> bool:
    return bool((pixels == pixels[:, :1]).all())


def _with_channels(pixels: Tensor, channels: int) -> Tensor:
    """Luminance, where a model of grey pictures is given coloured ones."""
    if channels == pixels.shape[1]:
        return pixels
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (pixels.float() * weights).sum(1, keepdim=True).round().to(torch.uint8)
