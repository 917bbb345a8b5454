"""The interface of an artifact store; put, get, head, delete and multipart are enough for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

PART_BYTES = 8 * 2**20
"""Size of every part of a streamed object but the last."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that was written and verified."""

    key: str
    sha256: str
    bytes: int


class ObjectWriter(Protocol):
    """Streams one object, holding one part in memory; nothing is visible before ``finish``."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> StoredObject:
        """Completes and verifies the object. Raises StorageUnavailable or StorageFull."""

    def abort(self) -> None:
        """Drops what was written; safe to call at any time, also after a failure."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None:
        """Aborts unless ``finish`` was called."""


class Store(Protocol):
    """Objects by key. Every method raises StorageUnavailable when the store does not answer,
    StorageFull when it has no room, and NotFound for a key that does not exist."""

    def put_bytes(self, key: str, data: bytes, *, media_type: str) -> StoredObject: ...

    def put_file(self, key: str, path: Path, *, media_type: str) -> StoredObject: ...

    def writer(self, key: str, *, media_type: str) -> ObjectWriter: ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Chunks of bytes ``[start, end)``; raises before the first chunk if it can't be opened."""

    def size(self, key: str) -> int: ...

    def delete(self, key: str) -> None:
        """Removes the object; no error when it is gone already."""

    def delete_prefix(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """Removes every object below ``prefix`` but the keys of ``keep``; returns how many."""

    def keys(self, prefix: str, *, limit: int) -> list[str]:
        """Keys below ``prefix``, in no order that means anything; ``limit`` of them at most."""

    def delete_keys(self, keys: Sequence[str]) -> None:
        """Removes these objects; no error for those that are gone already."""

    def abort_uploads(self, prefix: str, *, older_than_seconds: float) -> int:
        """Drops what was begun to be written below ``prefix`` and not ended, so long ago or longer;
        returns how many objects that would have become. A directory does not know of what is under
        way whose it is: there everything of a day or more goes."""

    def download_url(
        self, key: str, *, filename: str, media_type: str, seconds: int, inline: bool = False
    ) -> str:
        """A URL that downloads this key, as an attachment, until it expires.

        With ``inline`` a browser shows it, if it is a picture, a sound or a video; anything else
        stays an attachment. The URL answers range requests. It is absolute, or a path on the API's
        own address (``/v1/downloads/…``).
        """
