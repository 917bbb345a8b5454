"""Models that the store keeps, on this machine: fetched once, verified, the oldest making room.

    <folder>/<digest>/        every file of one model, complete
    <folder>/<digest>.part/   the same while it is being fetched; a later try goes on with it
    <folder>/<digest>.lock    exclusive for whoever fetches or removes, shared for who may read

The digest is of all paths, sizes and hashes, so models of the same files share a folder, and a
folder never changes. Threads and processes of a machine may share ``folder``.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from shared.db.models import Model, ModelFile
from shared.errors import StorageUnavailable
from shared.storage.base import Store
from worker.inputs import Leaving
from worker.model_paths import ModelDamaged, check_files

log = structlog.get_logger()

DEFAULT_CACHE_BYTES = 20 * 2**30
TRIES = 3
"""Of a file whose bytes are not those that were stored, before its model counts as damaged."""
KEPT_SECONDS = 900.0
"""For so long after its last use a model's folder stays, whatever else needs room: an engine may
be about to read it."""
LOCK_PAUSE_SECONDS = 0.1
TOUCH_SECONDS = 30.0
PART, LOCK = ".part", ".lock"
CHUNK_BYTES = 2**20

Leaves = Callable[[], bool]


def digest_of(files: Sequence[ModelFile]) -> str:
    """32 hex digits that name exactly these files."""
    said = sorted([file.path, file.bytes, file.sha256] for file in files)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


class ModelFiles:
    """The folder of this machine's models. Any thread may call it."""

    def __init__(self, store: Store, folder: Path, most_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """``most_bytes`` bounds what lies in ``folder``, unless all of it is in use."""
        self._store = store
        self._folder = folder.absolute()
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        """Descriptors with a shared lock, by digest."""
        self._used: dict[str, float] = {}
        self._touched: dict[str, float] = {}

    def path(self, model: Model) -> Path | None:
        """The model's folder if it is there and in use already; asks nobody, never blocks."""
        digest = digest_of(model.files)
        with self._lock:
            if digest not in self._held:
                return None
            return self._use(digest)

    def local(self, model: Model, leaving: Leaves = lambda: False) -> Path:
        """The model's folder, fetched if need be. Blocks on the store and on whoever else fetches
        the same model.

        Raises StorageUnavailable and NotFound as the store does; ModelDamaged for files that are
        not what the catalog says, or not of a kind that is read; Leaving once ``leaving()``.
        """
        check_files(model.files)
        digest = digest_of(model.files)
        try:
            while (found := self.path(model) or self._hold(digest)) is None:
                lock = self._try_lock(digest, fcntl.LOCK_EX)
                if lock is not None:
                    self._fetch_locked(model, digest, lock, leaving)
                elif leaving():
                    raise Leaving
                else:  # somebody fetches it
                    time.sleep(LOCK_PAUSE_SECONDS)
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "?")
            log.warning("model_not_kept", model=model.id, reason=reason)
            raise StorageUnavailable("there is no room for a model's files") from error
        return found

    def close(self) -> None:
        """Lets go of every folder; the files stay for the next worker."""
        with self._lock:
            for digest in list(self._held):
                self._let_go(digest)

    # --- in use ---------------------------------------------------------------------------

    def _complete(self, digest: str) -> Path:
        return self._folder / digest

    def _hold(self, digest: str) -> Path | None:
        """Takes a shared lock on a folder that is complete, and keeps it."""
        lock = self._try_lock(digest, fcntl.LOCK_SH)
        if lock is None:
            return None
        with self._lock:
            if digest in self._held:  # another thread was faster
                os.close(lock)
            else:
                self._held[digest] = lock
            return self._use(digest)

    def _use(self, digest: str) -> Path | None:
        found = self._complete(digest)
        now = time.monotonic()
        try:
            if now - self._touched.get(digest, -TOUCH_SECONDS) >= TOUCH_SECONDS:
                os.utime(found)
                self._touched[digest] = now
            elif not found.is_dir():
                raise FileNotFoundError(found)
        except OSError:  # not fetched yet, or somebody has emptied the folder
            self._let_go(digest)
            return None
        self._used[digest] = now
        return found

    def _let_go(self, digest: str) -> None:
        self._used.pop(digest, None)
        self._touched.pop(digest, None)
        os.close(self._held.pop(digest))

    # --- locks ----------------------------------------------------------------------------

    def _try_lock(self, digest: str, kind: int) -> int | None:
        """A descriptor that holds the digest's lock, or None while somebody else does."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{digest}{LOCK}"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            gone = os.fstat(lock).st_nlink == 0  # removed with its model before it was locked
        except BlockingIOError:
            gone = True
        except BaseException:
            os.close(lock)
            raise
        if gone:
            os.close(lock)
            return None
        return lock

    # --- fetching -------------------------------------------------------------------------

    def _fetch_locked(self, model: Model, digest: str, lock: int, leaving: Leaves) -> None:
        try:
            if not self._complete(digest).is_dir():
                self._fetch(model, digest, leaving)
        finally:
            os.close(lock)

    def _fetch(self, model: Model, digest: str, leaving: Leaves) -> None:
        began, size = time.monotonic(), sum(file.bytes for file in model.files)
        part = self._folder / f"{digest}{PART}"
        self._make_room(size, digest)
        part.mkdir(exist_ok=True, mode=0o700)
        for file in model.files:
            target = part / file.path
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._fetch_file(file, target, leaving)
        os.rename(part, self._complete(digest))
        seconds = round(time.monotonic() - began, 3)
        log.info("model_fetched", model=model.id, bytes=size, seconds=seconds)

    def _fetch_file(self, file: ModelFile, target: Path, leaving: Leaves) -> None:
        half = target.with_name(target.name + PART)
        for _ in range(TRIES):
            if self._download(file, half, leaving) == file.sha256:
                os.rename(half, target)
                return
            half.unlink()
            log.warning("model_file_damaged", key=file.key)
        raise ModelDamaged(f"{file.path} is not as it was stored")

    def _download(self, file: ModelFile, half: Path, leaving: Leaves) -> str:
        """Fetches what is missing of ``half``; returns the whole file's sha256."""
        sha256 = hashlib.sha256()
        with half.open("a+b") as kept:
            if kept.tell() > file.bytes:
                kept.truncate(0)
            kept.seek(0)
            while data := kept.read(CHUNK_BYTES):
                sha256.update(data)
            start = kept.tell()
            chunks = self._store.read(file.key, start, file.bytes) if start < file.bytes else ()
            for chunk in chunks:
                if leaving():
                    raise Leaving
                kept.write(chunk)
                sha256.update(chunk)
            size = kept.tell()
            kept.flush()
            os.fsync(kept.fileno())
        if size < file.bytes:
            raise StorageUnavailable("the store returned less than was written")
        return sha256.hexdigest()

    # --- room -----------------------------------------------------------------------------

    def _make_room(self, wanted: int, digest: str) -> None:
        """Removes what was used longest ago and is in nobody's use, until ``wanted`` bytes fit."""
        self._let_go_of_unused()
        kept = {path: _bytes_of(path) for path in self._folder.iterdir() if path.is_dir()}
        for path in sorted(kept, key=_last_use):
            if sum(kept.values()) + wanted <= self._most_bytes:
                return
            name = path.name.removesuffix(PART)
            if name != digest and self._remove(name, path):
                del kept[path]
        if kept and sum(kept.values()) + wanted > self._most_bytes:
            log.warning("models_over_their_bound", bytes=sum(kept.values()) + wanted)

    def _let_go_of_unused(self) -> None:
        now = time.monotonic()
        with self._lock:
            for digest, used in list(self._used.items()):
                if now - used > KEPT_SECONDS:
                    self._let_go(digest)

    def _remove(self, digest: str, path: Path) -> bool:
        lock = self._try_lock(digest, fcntl.LOCK_EX)
        if lock is None:
            return False
        try:
            shutil.rmtree(path, ignore_errors=True)
            with suppress(FileNotFoundError):
                os.unlink(self._folder / f"{digest}{LOCK}")
        finally:
            os.close(lock)
        log.info("model_files_removed", digest=digest)
        return True


def _bytes_of(folder: Path) -> int:
    """Of all files in it; a folder that goes meanwhile counts as far as it was seen."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
