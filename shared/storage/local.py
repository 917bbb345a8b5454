"""A store in a local directory: files 0600 in folders 0700, written aside, renamed into place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn, Self

import structlog

from shared.errors import NotFound, StorageFull, StorageUnavailable
from shared.storage.base import StoredObject
from shared.storage.downloads import Download, DownloadSigner, may_be_inline
from shared.storage.keys import check_key, check_range, folder_of

CHUNK_BYTES = 2**20
PARTIAL_FOLDER = ".partial"
ABANDONED_SECONDS = 24 * 3600.0
"""A partial file that nobody has written to for this long belongs to a dead process."""
_RENAME_TRIES = 100
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})

log = structlog.get_logger(__name__)


class LocalStore:
    """Implements ``Store``. Processes of one machine share the directory."""

    def __init__(self, root: Path, signing_key: str) -> None:
        """Makes the directory if need be. Raises StorageUnavailable."""
        self._root = root.absolute()
        self._partial = self._root / PARTIAL_FOLDER
        self._signer = DownloadSigner(signing_key)
        with _mapped_errors("open"):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._partial.mkdir(mode=0o700, exist_ok=True)
            self._drop_abandoned()

    def put_bytes(self, key: str, data: bytes, *, media_type: str) -> StoredObject:
        with self.writer(key, media_type=media_type) as writer:
            writer.write(data)
            return writer.finish()

    def put_file(self, key: str, path: Path, *, media_type: str) -> StoredObject:
        with path.open("rb") as source, self.writer(key, media_type=media_type) as writer:
            while data := source.read(CHUNK_BYTES):
                writer.write(data)
            return writer.finish()

    def writer(self, key: str, *, media_type: str) -> LocalWriter:
        """The media type is not kept: ``download_url`` brings it."""
        target = self._path(key)
        return LocalWriter(key, self._root, target, self._partial / secrets.token_hex(16))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        check_range(start, end)
        with self._finding(key):
            file = self._open(key)
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
        return _chunks(file, (size if end is None else min(end, size)) - start)

    def size(self, key: str) -> int:
        with self._finding(key), self._open(key) as file:
            return os.fstat(file.fileno()).st_size

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _mapped_errors("delete"):
            try:
                path.unlink()
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                return
            self._remove_empty(path.parent)

    def delete_prefix(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        top = self._root / folder_of(prefix)
        kept = {self._root / check_key(key) for key in keep}
        deleted = 0
        with _mapped_errors("delete"):
            for folder, _, names in os.walk(top, topdown=False, onerror=_raise_unless_absent):
                for path in (Path(folder, name) for name in names):
                    if path in kept:
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
                        deleted += 1
                self._remove_empty(Path(folder))
        return deleted

    def keys(self, prefix: str, *, limit: int) -> list[str]:
        top = self._root / folder_of(prefix)
        found: list[str] = []
        with _mapped_errors("list"):
            for folder, _, names in os.walk(top, onerror=_raise_unless_absent):
                for name in names:
                    if len(found) == limit:
                        return found
                    found.append(Path(folder, name).relative_to(self._root).as_posix())
        return found

    def delete_keys(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.delete(key)

    def abort_uploads(self, prefix: str, *, older_than_seconds: float) -> int:
        folder_of(prefix)
        with _mapped_errors("abort"):
            return self._drop_abandoned()

    def download_url(
        self, key: str, *, filename: str, media_type: str, seconds: int, inline: bool = False
    ) -> str:
        """A path on the API's own address; ``verify_download`` reads its last segment."""
        shown = inline and may_be_inline(media_type)
        download = Download(check_key(key), filename, media_type, shown)
        return f"/v1/downloads/{self._signer.sign(download, time.time() + seconds)}"

    def verify_download(self, token: str, now: float) -> Download:
        """What the token allows at ``now``, in seconds since 1970.

        Raises NotFound for a token that is not ours, Forbidden for one that has expired.
        """
        return self._signer.verify(token, now)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _open(self, key: str) -> BinaryIO:
        descriptor = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.fdopen(descriptor, "rb", buffering=0)
        except OSError:  # a folder
            os.close(descriptor)
            raise

    @contextlib.contextmanager
    def _finding(self, key: str) -> Iterator[None]:
        """An absent file is an absent object, unless the whole directory is gone."""
        with _mapped_errors("read"):
            try:
                yield
            except OSError as error:
                if error.errno in _ABSENT and self._partial.is_dir():
                    raise NotFound(f"There is no object {key!r}.") from error
                raise

    def _remove_empty(self, folder: Path) -> None:
        """Removes this folder and those above it, up to the first that holds something."""
        while folder != self._root:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            folder = folder.parent

    def _drop_abandoned(self) -> int:
        oldest, dropped = time.time() - ABANDONED_SECONDS, 0
        for partial in self._partial.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if partial.stat().st_mtime < oldest:
                    partial.unlink()
                    dropped += 1
        return dropped


class LocalWriter:
    """Implements ``ObjectWriter``: writes a partial file, which ``finish`` renames into place."""

    def __init__(self, key: str, root: Path, target: Path, partial: Path) -> None:
        self._key = key
        self._root = root
        self._target = target
        self._partial = partial
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        with _mapped_errors("write"):
            descriptor = os.open(
                partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            self._file: BinaryIO | None = os.fdopen(descriptor, "wb", buffering=CHUNK_BYTES)

    def write(self, data: bytes) -> None:
        file = self._opened()
        with _mapped_errors("write"):
            file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def finish(self) -> StoredObject:
        file = self._opened()
        with _mapped_errors("write"):
            file.flush()
            os.fsync(file.fileno())
            if os.fstat(file.fileno()).st_size != self._bytes:
                raise OSError(errno.EIO, "the file is not as long as what was written")
            self._rename()
            self._file = None
            file.close()
        return StoredObject(self._key, self._sha256.hexdigest(), self._bytes)

    def abort(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        # Closing flushes, which fails for the same reason as the write before it.
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            self._partial.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.abort()

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("this writer was finished or aborted")
        return self._file

    def _rename(self) -> None:
        folder = self._target.parent
        made: set[Path] = set()
        for tries_left in reversed(range(_RENAME_TRIES)):
            try:
                made |= _make_folders(folder, self._root)
                os.rename(self._partial, self._target)
                break
            except FileNotFoundError:  # someone removed the folder, which was still empty
                if not tries_left:
                    raise
        # Only now, as it takes long enough for a new and empty folder to be removed again.
        for changed in {folder, *(new.parent for new in made)}:
            with contextlib.suppress(FileNotFoundError):  # deleted already, with its folder
                _sync_folder(changed)


def _make_folders(folder: Path, root: Path) -> set[Path]:
    """Makes each folder below ``root`` that is missing; returns those."""
    missing = []
    while folder != root and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(mode=0o700, exist_ok=True)
    return set(missing)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _chunks(file: BinaryIO, left: int) -> Iterator[bytes]:
    with file:
        while left > 0:
            with _mapped_errors("read"):
                data = file.read(min(left, CHUNK_BYTES))
                if not data:
                    raise OSError(errno.EIO, "the file became shorter while it was read")
            left -= len(data)
            yield data


def _raise_unless_absent(error: OSError) -> None:
    if error.errno not in _ABSENT:
        raise error


@contextlib.contextmanager
def _mapped_errors(operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _raise_mapped(operation, error)


def _raise_mapped(operation: str, error: OSError) -> NoReturn:
    reason = errno.errorcode.get(error.errno or 0, type(error).__name__)
    log.warning("storage_failed", operation=operation, reason=reason)
    if error.errno in _FULL:
        raise StorageFull("The artifact store has no room left.") from error
    raise StorageUnavailable("The artifact store does not answer.") from error
