"""A private folder per test process, removed at its end, or by the next one if it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "pressrun-tests-"
LONGEST_BASE = 40
"""Sockets live below: their path may be 107 bytes in all."""


class Scratch:
    """``path`` is ours as long as we hold the lock on the file beside it."""

    def __init__(self) -> None:
        base = _base()
        _remove_abandoned(base)
        descriptor, name = tempfile.mkstemp(prefix=PREFIX, suffix=".lock", dir=base)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        self._lock = Path(name)
        self.path = self._lock.with_suffix("")
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.unlink(missing_ok=True)
        os.close(self._descriptor)


def _base() -> Path:
    """The temporary folder, unless its name would trip servers' shell scripts or sockets."""
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) <= LONGEST_BASE and not usual.count(" ") else "/tmp")  # noqa: S108


def _remove_abandoned(base: Path) -> None:
    for lock in base.glob(f"{PREFIX}*.lock"):
        with contextlib.suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A lock without its folder may be one that is being made this moment.
                if lock.with_suffix("").exists():
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink()
            finally:
                os.close(descriptor)
