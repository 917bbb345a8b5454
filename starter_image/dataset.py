"""The data stage: icons become one file of pixels and one of names, which later stages read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from starter_image.icons import Icon, fetch, rasterise, read_icons
from starter_image.progress import Report

_PIXELS = "icons.safetensors"
_NAMES = "names.json"


@dataclass(frozen=True)
class Dataset:
    """Names as words, and their pictures: uint8 of shape (icons, 3, pixels, pixels)."""

    names: list[str]
    pictures: torch.Tensor

    def images(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures at ``indices`` as float in [-1, 1], the range diffusers works in."""
        return self.pictures[indices].float().div(127.5).sub(1)


def prepare(work: Path, pixels: int, report: Report) -> Dataset:
    """Fetches, draws and stores the data under ``work``, or reads what is there.

    Raises icons.DataError.
    """
    if not (work / _NAMES).is_file():
        icons = read_icons(fetch(work / "data"))
        report(f"data: {len(icons)} icons, drawing at {pixels} pixels")
        store(work, icons, pixels)
    return read(work)


def store(work: Path, icons: list[Icon], pixels: int) -> None:
    """Draws ``icons`` and writes both files; names come last, as the mark that all is there."""
    work.mkdir(parents=True, exist_ok=True)
    pictures = torch.from_numpy(rasterise(icons, pixels)).permute(0, 3, 1, 2).contiguous()
    save_file({"pictures": pictures}, work / _PIXELS)
    (work / _NAMES).write_text(json.dumps([icon.name for icon in icons]), encoding="utf-8")


def read(work: Path) -> Dataset:
    """Reads what ``store`` wrote."""
    names = json.loads((work / _NAMES).read_text(encoding="utf-8"))
    return Dataset(names, load_file(work / _PIXELS)["pictures"])
