"""Pictures that requests bring along: checked by their headers, kept as files for 30 days.

A file that was uploaded, and a ``data:`` URL of some size, is stored and named by its file id, so
that a spec stays small. Nothing is decoded here, and nothing is ever fetched from a network.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from api.limits import MAX_DEADLINE_SECONDS
from api.new_files import NewFile, keep_file
from api.picture_headers import read_picture_header
from api.services import Services
from shared.errors import InvalidRequest, UnsupportedMedia
from shared.ids import new_file_id
from shared.specs import MediaReference

PURPOSE = "vision"
LIFE_SECONDS = MAX_DEADLINE_SECONDS
"""The job reads them when its turn comes, which a day may be too short for."""
MAX_INLINE_CHARACTERS = 16_384
"""A ``data:`` URL up to this long stays in the spec."""

MEDIA_MEMBERS = frozenset({
    "image", "images", "input_reference", "logo", "mask", "music", "narration", "picture",
    "pictures", "portrait",
})  # fmt: skip
"""Members of specs and of their scenes that hold references to media, or lists of them."""
SCENES = "scenes"
_SOUNDS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")

Swap = Callable[[str, str], str | None]
"""(data URL, where it stands) → the file id to put in its place, or None to leave it."""


class Pictures:
    """The pictures of one request: found good first, stored once the rest of it is good too."""

    def __init__(self) -> None:
        self._new: list[NewFile] = []

    def add_upload(self, path: Path, filename: str, *, param: str) -> str:
        """Checks an uploaded picture and returns its file id. Raises UnsupportedMedia or
        MediaTooLarge."""
        with path.open("rb") as file:
            return self._add(file, path, filename, param)

    def add_data_urls(self, body: dict[str, Any]) -> dict[str, Any]:
        """Checks every ``data:`` URL among the body's media; the longer ones are replaced by file
        ids in the copy that is returned. Raises UnsupportedMedia or MediaTooLarge."""
        return _swapped(body, self._take)

    def store(self, services: Services, tenant_id: str) -> None:
        """Stores what was added, and lets go of it: a direct call waits for long. Raises
        StorageUnavailable or StorageFull."""
        while self._new:
            keep_file(services, tenant_id, self._new[0])
            del self._new[0]

    def _take(self, url: str, param: str) -> str | None:
        picture = _checked_picture(url, param)
        if picture is None or len(url) <= MAX_INLINE_CHARACTERS:
            return None
        return self._add(io.BytesIO(picture), picture, "data", param)

    def _add(self, file: IO[bytes], source: Path | bytes, filename: str, param: str) -> str:
        header = read_picture_header(file, param=param)
        name = filename if filename not in {"", "file", "data"} else f"picture{header.extension}"
        self._new.append(
            NewFile(new_file_id(), source, name, PURPOSE, header.media_type, LIFE_SECONDS)
        )
        return self._new[-1].file_id


def check_data_urls(body: dict[str, Any]) -> None:
    """Raises UnsupportedMedia or MediaTooLarge for a ``data:`` URL among the body's media that
    holds no picture or sound read here."""

    def check(url: str, param: str) -> None:
        _checked_picture(url, param)

    _swapped(body, check)


def _checked_picture(url: str, param: str) -> bytes | None:
    """The bytes of a data URL that holds a picture; None for a sound, whose beginning is all that
    is looked at, and for what is no data URL: the spec refuses that."""
    if not url.startswith("data:"):
        return None
    try:
        found = MediaReference.model_validate({"image_url": url}).data()
    except ValueError:
        raise InvalidRequest("not a data: URL in base64", param=param) from None
    assert found is not None  # noqa: S101 - it is a data URL
    media_type, data = found
    if not media_type.startswith("audio/"):
        read_picture_header(io.BytesIO(data), param=param)
        return data
    if not data.startswith(_SOUNDS):
        raise UnsupportedMedia("sounds must be WAV, FLAC, Ogg or MP3", param=param)
    return None


def _swapped(body: dict[str, Any], swap: Swap) -> dict[str, Any]:
    """A copy of ``body`` in which ``swap`` has replaced references that are data URLs."""
    return {name: _swapped_member(name, value, swap, name) for name, value in body.items()}


def _swapped_member(name: str, value: Any, swap: Swap, where: str) -> Any:
    if name in MEDIA_MEMBERS:
        if isinstance(value, list):
            return [_swapped_one(item, swap, f"{where}[{at}]") for at, item in enumerate(value)]
        return _swapped_one(value, swap, where)
    if name == SCENES and isinstance(value, list):
        return [_swapped_scene(scene, swap, f"{where}[{at}]") for at, scene in enumerate(value)]
    return value


def _swapped_scene(scene: Any, swap: Swap, where: str) -> Any:
    if not isinstance(scene, dict):
        return scene
    return {
        name: _swapped_one(value, swap, f"{where}.{name}") if name in MEDIA_MEMBERS else value
        for name, value in scene.items()
    }


def _swapped_one(value: Any, swap: Swap, where: str) -> Any:
    url = value.get("image_url") if isinstance(value, dict) else value
    file_id = swap(url, where) if isinstance(url, str) else None
    return value if file_id is None else {"file_id": file_id}
