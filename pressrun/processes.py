"""Child processes that may not outlive us, and what ``/proc`` tells about other ones."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROC = Path("/proc")
POLL_SECONDS = 0.01
THREADS_FIELD = 17
"""Of ``/proc/PID/stat``, from 0 after the program's name."""


class KeptProcess:
    """A child started, and reaped, by a thread that lives exactly as long as the child.

    The kernel's parent-death signal fires when the *thread* that started the child ends. Started
    from here, that is when this process ends, whichever thread asked for the child.
    """

    def __init__(self, argv: list[str], **popen_arguments: Any) -> None:
        """Starts ``argv``. Raises OSError when it can't be executed."""
        self._process: subprocess.Popen[bytes] | None = None
        self._error: Exception | None = None
        self._started = threading.Event()
        self._exited = threading.Event()
        keeper = threading.Thread(
            target=self._keep, args=(argv, popen_arguments), name=f"keeper-{argv[0]}", daemon=True
        )
        keeper.start()
        self._started.wait()
        if self._process is None:
            raise self._error or OSError(f"cannot run {argv[0]}")
        self.pid: int = self._process.pid

    def _keep(self, argv: list[str], popen_arguments: dict[str, Any]) -> None:
        try:
            self._process = subprocess.Popen(argv, **popen_arguments)
        except Exception as error:  # handed to the thread that asked
            self._error = error
            return
        finally:
            self._started.set()
        self._process.wait()
        self._exited.set()

    @property
    def running(self) -> bool:
        return not self._exited.is_set()

    def wait(self, timeout_seconds: float) -> bool:
        """Whether the process ended within the time."""
        return self._exited.wait(timeout_seconds)

    def send(self, signal_number: int) -> None:
        """Signals the process, if it still lives."""
        if self.running:
            send(self.pid, signal_number)


def send(pid: int, signal_number: int) -> None:
    """Signals a process; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def is_alive(pid: int) -> bool:
    """Whether the process exists and has not ended (a zombie has, once its threads are gone)."""
    if not PROC.joinpath("self").exists():
        return _answers_to_signals(pid)
    fields = _stat_fields(pid)
    return bool(fields) and (fields[0] not in ("Z", "X") or int(fields[THREADS_FIELD]) > 1)


def program_of(pid: int) -> str:
    """The short name of the process's program; empty when there is no such process."""
    try:
        return PROC.joinpath(str(pid), "comm").read_text().strip()
    except OSError:
        return ""


def children_of(pid: int) -> list[int]:
    """The direct children of a process; none where there is no ``/proc``."""
    return [child for child in _pids() if _stat_fields(child)[1:2] == [str(pid)]]


def processes_in(folder: Path) -> list[int]:
    """The processes whose working directory is ``folder``, among those that we may inspect."""
    path = str(folder.resolve())
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if os.readlink(PROC / str(pid) / "cwd") == path and is_alive(pid):
                found.append(pid)
    return found


def wait_until_gone(pids: Iterable[int], *, timeout_seconds: float) -> bool:
    """Whether all of the processes ended within the time."""
    left = list(pids)
    deadline = time.monotonic() + timeout_seconds
    while left := [pid for pid in left if is_alive(pid)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(PROC) if name.isdigit()]
    except OSError:
        return []


def _stat_fields(pid: int) -> list[str]:
    """``[state, parent, …]`` of ``/proc/PID/stat``; empty when there is no such process."""
    try:
        text = PROC.joinpath(str(pid), "stat").read_text(errors="replace")
    except OSError:
        return []
    # The program's name, in parentheses before these, may itself hold spaces and parentheses.
    return text[text.rindex(")") + 1 :].split()


def _answers_to_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
