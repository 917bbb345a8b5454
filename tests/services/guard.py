"""Runs one server and kills it with all of its processes when the test process is gone.

Run as a script, it starts the command and watches its standard input, whose other end only the
test process holds: at end of file, which no ``kill -9`` can prevent, it kills every descendant.
``GuardedProcess`` is the test process's side. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GONE_SECONDS = 10.0
PR_SET_CHILD_SUBREAPER = 36
THREADS_FIELD = 17
"""Of ``/proc/PID/stat``, from 0 after the program's name."""


class GuardedProcess:
    """A command that ends, with all that it started, no later than this process."""

    def __init__(
        self, argv: list[str], *, log_path: Path, environment: dict[str, str], folder: Path
    ) -> None:
        with log_path.open("ab") as log:
            self._guard = subprocess.Popen(
                # Neither site-packages nor the caller's PYTHON* variables: it starts at once.
                [sys.executable, "-I", "-S", str(Path(__file__).resolve()), *argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder,
                # A Ctrl-C in the terminal is for pytest, which then stops us in its own order.
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._guard.poll() is None

    def stop(self, *, timeout_seconds: float) -> bool:
        """SIGTERM; whether the command ended by itself in time. Nothing is left in either case."""
        if self.running:
            self._guard.send_signal(signal.SIGTERM)
        try:
            self._guard.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        else:
            return True
        finally:
            self.kill()

    def kill(self) -> None:
        """``kill -9`` of the command and of all that it started; returns when they are gone."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        try:
            self._guard.wait(GONE_SECONDS)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()


def main() -> int:
    """The guard: returns the command's exit code, 128 + N if signal N ended it."""
    # Orphans among the descendants become our children: a server that detaches can't escape.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    # A handler rather than SIG_IGN, which the command would have inherited.
    signal.signal(signal.SIGTERM, lambda *_: command.send_signal(signal.SIGTERM))
    threading.Thread(target=_end_with_input, daemon=True).start()
    code = command.wait()
    _kill_descendants()
    return code if code >= 0 else 128 - code


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    _kill_descendants()
    os._exit(128 + signal.SIGKILL)


def _kill_descendants() -> None:
    while pids := _descendants():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _descendants() -> list[int]:
    """Every process below this one that has not ended."""
    children: dict[int, list[int]] = {}
    ended = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            pid = int(stat.parent.name)
            children.setdefault(int(fields[1]), []).append(pid)
            # While other threads of a zombie still end, its sockets are still open.
            if fields[0] in ("Z", "X") and int(fields[THREADS_FIELD]) <= 1:
                ended.add(pid)
    found = []
    waiting = [os.getpid()]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            waiting.append(child)
            if child not in ended:
                found.append(child)
    return found


if __name__ == "__main__":
    sys.exit(main())
