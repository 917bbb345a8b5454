"""A ZIP that is streamed into the store: nothing of it but a chunk is ever in memory."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterable
from typing import Self

from shared.storage.base import ObjectWriter, StoredObject

MEDIA_TYPE = "application/zip"
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_DENSE_ALREADY = frozenset(
    {"image/png", "image/jpeg", "image/webp", "audio/mpeg", "audio/ogg", "audio/flac",
     "video/mp4", "video/webm"}
)  # fmt: skip


class _Stream:
    """What ``zipfile`` writes to: without ``tell`` and ``seek``, so that it never goes back."""

    def __init__(self, writer: ObjectWriter) -> None:
        self._writer: ObjectWriter | None = writer

    def write(self, data: bytes) -> int:
        if self._writer is not None:
            self._writer.write(bytes(data))
        return len(data)

    def drop(self) -> None:
        """Nothing is passed on from here: a ``ZipFile`` that goes away still writes its end."""
        self._writer = None

    def flush(self) -> None:
        """The writer keeps parts of a fixed size."""


class BundleZip:
    """Adds files one after the other. All carry the same time, so that a repeated attempt writes
    the same bytes."""

    def __init__(self, writer: ObjectWriter, created_at: float) -> None:
        self._writer = writer
        self._stream = _Stream(writer)
        self._zip = zipfile.ZipFile(self._stream, "w")  # type: ignore[call-overload]
        when = time.gmtime(created_at)[:6]
        self._time = max(when, _EARLIEST)

    def add(self, name: str, chunks: Iterable[bytes], *, media_type: str, size: int = 0) -> None:
        """``size`` in bytes, when it is known, decides about the 64-bit format."""
        info = zipfile.ZipInfo(name, self._time)
        info.compress_type = (
            zipfile.ZIP_STORED if media_type in _DENSE_ALREADY else zipfile.ZIP_DEFLATED
        )
        info.external_attr = 0o644 << 16
        info.file_size = size
        with self._zip.open(info, "w") as entry:
            for chunk in chunks:
                entry.write(chunk)

    def finish(self) -> StoredObject:
        self._zip.close()
        return self._writer.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Drops the object unless it was finished."""
        self._stream.drop()
        self._writer.abort()
