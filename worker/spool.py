"""The folder where a worker keeps rows' files while they are in flight.

    <scratch>/spool-<random>.lock     held for as long as the worker lives
    <scratch>/spool-<random>/made/…   written by engine children, a folder for each
                            /taken/   described by an engine, waiting to be stored
                            /given/   pictures and sounds that rows bring along

What a child says of its files is not believed: a file counts once it was moved out of the child's
own folder, and what it holds is verified while it is stored.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import structlog

from worker.engines.protocol import OutputFile

log = structlog.get_logger()

PREFIX = "spool-"
LOCK_SUFFIX = ".lock"
LARGEST_FILE_BYTES = 4 * 2**30


class BadFile(Exception):
    """An engine described a file that is not there, not its own, or not what it says."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A file as its engine described it, and where it is now."""

    file: OutputFile
    path: Path


class Spool:
    """One worker's folder, 0700. Threads may share it: every name in it is used once."""

    def __init__(self, scratch: Path) -> None:
        """Makes the folder, and removes those of workers that are gone. Raises OSError."""
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root, self._lock = _make_locked(scratch.absolute())
        for name in ("made", "taken", "given"):
            (self.root / name).mkdir(mode=0o700)
        _remove_abandoned(self.root.parent)

    def engine_folder(self, model_id: str, *, quarantine: bool) -> str:
        """Where the child that serves this model writes; the same at every call."""
        said = f"{model_id}\0{quarantine}".encode()
        return str(self.root / "made" / blake2b(said, digest_size=12).hexdigest())

    def open_engine_folder(self, folder: str) -> None:
        """Makes the folder of a child that will be started, and empty. Raises OSError."""
        self.empty(folder)
        os.mkdir(folder, mode=0o700)

    def empty(self, folder: str) -> None:
        """Removes what a child left behind that is gone; callable when there is nothing."""
        shutil.rmtree(folder, ignore_errors=True)

    def take(self, folder: str, file: OutputFile) -> Taken:
        """Moves a file out of its engine's ``folder``, whose it is no more. Raises BadFile."""
        parent, _, name = file.path.rpartition("/")
        if parent != folder or name in ("", ".", ".."):
            raise BadFile("it is not in the engine's folder")
        taken = self._new("taken")
        try:
            os.rename(file.path, taken)
            found = os.lstat(taken)
        except OSError as error:
            raise BadFile("it is not there") from error
        # Looked at where the child has no path to it any more.
        if not stat.S_ISREG(found.st_mode):
            remove([taken])
            raise BadFile("it is no plain file")
        if found.st_size != file.bytes or found.st_size > LARGEST_FILE_BYTES:
            remove([taken])
            raise BadFile("it is not as long as described")
        return Taken(file, taken)

    def take_all(self, folder: str, files: Sequence[OutputFile]) -> list[Taken]:
        """Every file of a row, or none: the others are removed. Raises BadFile."""
        taken: list[Taken] = []
        for number, file in enumerate(files):
            try:
                taken.append(self.take(folder, file))
            except BadFile:
                remove(item.path for item in taken)
                self.drop(folder, files[number + 1 :])
                raise
        return taken

    def drop(self, folder: str, files: Iterable[OutputFile]) -> None:
        """Removes files that nobody wants."""
        for file in files:
            with suppress(BadFile):
                remove([self.take(folder, file).path])

    def new_input(self) -> Path:
        """A path for a picture or a sound that a row brings along."""
        return self._new("given")

    def close(self) -> None:
        """Removes everything and lets go of the lock."""
        shutil.rmtree(self.root, ignore_errors=True)
        with suppress(OSError):
            os.unlink(_lock_path(self.root))
        os.close(self._lock)

    def _new(self, name: str) -> Path:
        return self.root / name / secrets.token_hex(16)


def remove(paths: Iterable[Path]) -> None:
    """Removes files, as far as they are there."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("file_not_removed", error=type(error).__name__)


def _lock_path(root: Path) -> Path:
    return root.with_name(root.name + LOCK_SUFFIX)


def _make_locked(scratch: Path) -> tuple[Path, int]:
    while True:
        root = scratch / f"{PREFIX}{secrets.token_hex(8)}"
        lock = os.open(_lock_path(root), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another worker may have taken it for abandoned before it was locked.
        if os.fstat(lock).st_nlink:
            root.mkdir(mode=0o700)
            return root, lock
        os.close(lock)


def _remove_abandoned(scratch: Path) -> None:
    """A lock that can be had is a dead worker's: the kernel lets go of it with the process."""
    for path in scratch.glob(f"{PREFIX}*{LOCK_SUFFIX}"):
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # just removed, or somebody else's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            # The folder first: without its lock nobody would ever find it.
            shutil.rmtree(path.with_name(path.name.removesuffix(LOCK_SUFFIX)), ignore_errors=True)
            with suppress(OSError):
                os.unlink(path)
            log.info("spool_abandoned", name=path.stem)
        finally:
            os.close(lock)
