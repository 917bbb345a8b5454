"""A row's video and what illustrates it: the file, a thumbnail and a sheet of stills.

Shared by the engines that make videos. Nothing but small stills is kept of a frame once it is
encoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.engines.encoding import MEDIA_TYPES, VideoFile, VideoFormat
from worker.engines.pictures import sheet, thumbnail, write_picture
from worker.engines.protocol import OutputFile
from worker.engines.sounds.encoding import file_of, fresh_path

SHEET_COLUMNS = 5
SHEET_STILLS = SHEET_COLUMNS * SHEET_COLUMNS
_STILL_SIDE = 240
THUMBNAIL_SIDE = 512
"""Longest side in pixels: enough for a poster."""


class Stills:
    """Frames picked while a video is made: some spread evenly, and the best of them."""

    def __init__(self, frame_n: int) -> None:
        count = min(SHEET_STILLS, frame_n)
        self._wanted = {round((i + 0.5) * frame_n / count - 0.5) for i in range(count)}
        self._stills: list[Image.Image] = []
        self._best: tuple[float, Image.Image] | None = None

    def offer(self, number: int, frame: Image.Image) -> None:
        """Shows frame ``number`` of the video; it is copied when it is wanted."""
        if number not in self._wanted:
            return
        small = frame.copy()
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
        score = _liveliness(small)
        if self._best is None or score > self._best[0] * 1.05:
            self._best = score, small
        still = small.copy()
        still.thumbnail((_STILL_SIDE, _STILL_SIDE))
        self._stills.append(still)

    def write(self, *, spool: Path, row: str, video: OutputFile) -> tuple[OutputFile, OutputFile]:
        """(thumbnail, sheet) in the spool, of a video with at least one frame."""
        assert self._best is not None  # noqa: S101 - a video has a frame
        best = thumbnail(self._best[1], spool=spool, row=row, of=video.name, side=THUMBNAIL_SIDE)
        columns = min(SHEET_COLUMNS, math.ceil(math.sqrt(len(self._stills))))
        grid = write_picture(
            sheet(self._stills, columns, gap=2, background="black"),
            spool=spool,
            row=row,
            name=f"{Path(video.name).stem}.spritesheet.webp",
            format="webp",
            quality=75,
            role="spritesheet",
            parent=video.id,
        )
        return best, grid


def _liveliness(picture: Image.Image) -> float:
    """Contrast and detail; a dark or empty frame has little of both."""
    light = np.asarray(picture.convert("L"), np.float32)
    return float(light.std() + 2 * np.abs(np.diff(light, axis=1)).mean())


class Footage:
    """Everything that one row leaves in the spool; either finished or discarded."""

    def __init__(
        self,
        spool: Path,
        row: str,
        container: VideoFormat,
        *,
        size: tuple[int, int],
        fps: int,
        frame_n: int,
        audio: bool = False,
        threads: int = 0,
    ) -> None:
        """``size`` is (width, height), both even."""
        self._spool, self._row, self._container = spool, row, container
        self._size, self.fps, self._frame_n = size, fps, frame_n
        self._path = fresh_path(spool, f".{container}")
        self._stills = Stills(frame_n)
        self._video = VideoFile(
            self._path, container, size=size, fps=fps, audio=audio, threads=threads
        )

    @property
    def codec(self) -> str:
        return self._video.codec

    def add(self, frame: Image.Image) -> None:
        """The next frame, RGB."""
        self._stills.offer(self._video.frame_n, frame)
        self._video.add_frame(np.asarray(frame))

    def add_sound(self, samples: NDArray[np.float32]) -> None:
        """As ``VideoFile.add_sound``."""
        self._video.add_sound(samples)

    def finish(self, provenance: Mapping[str, Any]) -> list[OutputFile]:
        """[video, thumbnail, sheet], complete in the spool."""
        self._video.finish()
        video = file_of(
            self._path,
            row=self._row,
            name=f"video.{self._container}",
            role="video",
            media_type=MEDIA_TYPES[self._container],
            width=self._size[0],
            height=self._size[1],
            seconds=self._frame_n / self.fps,
            provenance=provenance,
        )
        return [video, *self._stills.write(spool=self._spool, row=self._row, video=video)]

    def discard(self) -> None:
        """Removes the video from the spool, finished or not."""
        self._video.abandon()
        self._path.unlink(missing_ok=True)


def video_body(
    model: str,
    public_url: str,
    files: list[OutputFile],
    *,
    fps: int,
    warnings: list[str] | None = None,
    **more: int,
) -> bytes:
    """A ``video.file`` object as JSON, of files that include one with the role ``video``; ``more``
    is what repeats it: its seed, its steps."""
    by_role = {file.role: file for file in files}
    video, captions = by_role["video"], by_role.get("captions")
    body: dict[str, Any] = {
        "object": "video.file",
        "model": model,
        "artifact_id": video.id,
        "url": f"{public_url}/v1/artifacts/{video.id}/content",
        "media_type": video.media_type,
        "seconds": round(video.seconds or 0.0, 3),
        "size": f"{video.width}x{video.height}",
        "fps": fps,
        "thumbnail_id": by_role["thumbnail"].id,
        "spritesheet_id": by_role["spritesheet"].id,
        "captions_id": captions.id if captions else None,
        **more,
    }
    if warnings:
        body["warnings"] = warnings
    return msgspec.json.encode(body)
