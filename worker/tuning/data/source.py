"""An upload: its name, its size, and a way to read it from its start, as often as one likes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePath
from typing import IO

from worker.tuning.data.example import Refused
from worker.upkeep.assembly import Interrupted

FILE_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """``open_chunks`` starts at the first byte on every call; it may raise what a store raises."""

    filename: str
    size: int
    """Bytes."""
    open_chunks: Callable[[], Iterable[bytes]]
    path: Path | None = None
    """Where the upload is, when it is a file on this machine already."""

    @property
    def suffix(self) -> str:
        """``.jsonl``, in lower case."""
        return PurePath(self.filename).suffix.lower()

    @classmethod
    def of_file(cls, path: Path, filename: str | None = None) -> Source:
        """``filename`` is what the tenant called it, when ``path`` has another name."""

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(FILE_CHUNK):
                    yield chunk

        return cls(filename or path.name, path.stat().st_size, chunks, path)

    def interruptible(self, interrupted: Callable[[], bool]) -> Source:
        """The same upload, whose reading raises Interrupted once ``interrupted`` says so."""

        def chunks() -> Iterator[bytes]:
            for chunk in self.open_chunks():
                if interrupted():
                    raise Interrupted
                yield chunk

        return replace(self, open_chunks=chunks)

    def digest(self) -> str:
        """SHA-256 of its bytes, in hex."""
        found = sha256()
        for chunk in self.open_chunks():
            found.update(chunk)
        return found.hexdigest()


@contextmanager
def seekable(source: Source, scratch: Path | None, most_bytes: int) -> Iterator[IO[bytes]]:
    """The upload as a file one can seek in: its own, or a temporary copy below ``scratch`` (None:
    the system's folder) that is gone afterwards. Raises Refused for one that is too large."""
    if source.size > most_bytes:
        raise _too_large(most_bytes)
    if source.path is not None:
        with source.path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile(prefix="data-", dir=scratch) as copy:
        written = 0
        for chunk in source.open_chunks():
            written += len(chunk)
            if written > most_bytes:
                raise _too_large(most_bytes)
            copy.write(chunk)
        copy.seek(0)
        yield copy


def _too_large(most_bytes: int) -> Refused:
    return Refused("file_too_large", f"a ZIP has at most {most_bytes} bytes")
