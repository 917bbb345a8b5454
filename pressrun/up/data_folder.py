"""The folder that `up` lives in: what is where, its secrets, and whose it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pressrun.connection import ADMIN_KEY_FILE, API_KEY_FILE, URL_FILE
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.processes import is_alive

LOCK_PATIENCE_SECONDS = 15.0
"""How long a killed predecessor's last processes may take to be gone."""
POLL_SECONDS = 0.05


class DataFolder:
    """Paths below ``root``. Nothing is made before ``make``."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.postgres = self.root / "postgres"
        self.models = self.root / "models"
        self.models_file = self.root / "models.toml"
        self.artifacts = self.root / "artifacts"
        self.doorbells = self.root / "doorbells"
        self.scratch = self.root / "scratch"
        self.logs = self.root / "logs"
        self.signing_key = self.root / "signing-key"
        self.admin_key = self.root / ADMIN_KEY_FILE
        self.api_key = self.root / API_KEY_FILE
        self.url = self.root / URL_FILE

    def make(self) -> None:
        """Raises CommandError when the folder can't be made or written to."""
        # The account that Postgres runs as in place of root must be able to pass through.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        try:
            self.root.mkdir(mode=mode, parents=True, exist_ok=True)
            for folder in (self.logs, self.scratch, self.doorbells, self.artifacts):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CommandError(
                f"cannot use {self.root}: {error.strerror}", ExitCode.USAGE
            ) from None

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the folder for this process; yields the lock's file descriptor.

        A child that inherits the descriptor holds it too. Raises CommandError (USAGE) when a
        living `up` has it; the remains of a killed one are waited for.
        """
        file = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._lock(file)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
            yield file
            os.ftruncate(file, 0)
        finally:
            os.close(file)

    def _lock(self, file: int) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(file, 32, 0).decode(errors="replace").strip()
                if _lives(holder) or time.monotonic() > deadline:
                    raise CommandError(
                        f"{self.root} is in use by another `pressrun up` (process {holder or '?'})",
                        ExitCode.USAGE,
                    ) from None
            time.sleep(POLL_SECONDS)


def _lives(pid: str) -> bool:
    return pid.isdigit() and is_alive(int(pid))


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in ``path``, readable by its owner alone; made on first use."""
    with contextlib.suppress(FileNotFoundError):
        secret = path.read_text().strip()
        if secret:
            path.chmod(0o600)
            return secret
    secret = make()
    write_private(path, secret)
    return secret


def new_secret() -> str:
    """256 random bits, in letters, digits, ``-`` and ``_``."""
    return secrets.token_urlsafe(32)


def write_private(path: Path, text: str) -> None:
    """Replaces ``path`` at once, mode 0600, and durably: a crash leaves the old or the new."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, text.encode())
        os.fsync(file)
    finally:
        os.close(file)
    aside.replace(path)
