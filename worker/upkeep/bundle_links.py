"""Where a contact sheet finds its media: beside it in the unzipped folder, or inside itself."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol
from urllib.parse import quote

from shared.db.bundles import MadeArtifact
from worker.upkeep.bundle_contents import Contents, Medium

MAX_EMBEDDED_BYTES = 24 * 2**20
"""Of media inside one page; in base64 they take a third more."""
SMALL_PICTURE_BYTES = 256 * 2**10
"""Up to here a picture is shown itself, above it its thumbnail is."""

ReadArtifact = Callable[[MadeArtifact], Iterator[bytes]]


class Links(Protocol):
    """How a page names a medium."""

    def holds(self, artifact: MadeArtifact) -> bool:
        """Whether the page can show it wherever the page is opened."""

    def source(self, artifact: MadeArtifact) -> Iterator[str]:
        """The URL in pieces; nothing in it needs escaping."""


class FolderLinks:
    """For the page inside the ZIP."""

    def __init__(self, contents: Contents) -> None:
        self._files = contents.files

    def holds(self, artifact: MadeArtifact) -> bool:
        return True

    def source(self, artifact: MadeArtifact) -> Iterator[str]:
        yield quote(self._files[artifact.id])


class EmbeddedLinks(FolderLinks):
    """For the page that stands alone: what fits into it is in it, the rest is named as it is
    called in the ZIP."""

    def __init__(
        self, contents: Contents, read: ReadArtifact, most_bytes: int = MAX_EMBEDDED_BYTES
    ) -> None:
        super().__init__(contents)
        self._read = read
        self._inside = _fitting(_wanted(contents), most_bytes)

    def holds(self, artifact: MadeArtifact) -> bool:
        return artifact.id in self._inside

    def source(self, artifact: MadeArtifact) -> Iterator[str]:
        if not self.holds(artifact):
            yield from super().source(artifact)
            return
        yield f"data:{artifact.media_type};base64,"
        left = b""
        for chunk in self._read(artifact):
            data = left + chunk
            whole = len(data) - len(data) % 3
            left = data[whole:]
            yield base64.b64encode(data[:whole]).decode()
        yield base64.b64encode(left).decode()


def picture_shown(medium: Medium) -> MadeArtifact:
    """The picture itself, or its thumbnail when it is large."""
    if medium.main.bytes <= SMALL_PICTURE_BYTES:
        return medium.main
    return medium.companions.get("thumbnail", medium.main)


def _wanted(contents: Contents) -> Iterator[MadeArtifact]:
    """What the page shows, the most telling first."""
    pictures = [medium for medium in contents.media if medium.kind == "picture"]
    sounds = [medium for medium in contents.media if medium.kind == "voice-over"]
    videos = [medium for medium in contents.media if medium.kind == "video"]
    yield from map(picture_shown, pictures)
    for role, media in (("waveform", sounds), ("thumbnail", videos)):
        yield from (medium.companions[role] for medium in media if role in medium.companions)
    yield from (medium.main for medium in (*sounds, *videos))


def _fitting(wanted: Iterable[MadeArtifact], most_bytes: int) -> set[str]:
    inside: set[str] = set()
    for artifact in wanted:
        if artifact.bytes <= most_bytes:
            most_bytes -= artifact.bytes
            inside.add(artifact.id)
    return inside
