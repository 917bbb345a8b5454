"""A `pressrun up` of the demo's own, for its time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pressrun.connection import API_KEY_FILE
from pressrun.exit_codes import CommandError
from pressrun.terminal import Terminal
from pressrun.unprivileged import die_with_parent

STOP_SECONDS = 60.0
TAIL_LINES = 10
READY = "ready "


@contextmanager
def local_server(data: Path, terminal: Terminal, extra: list[str]) -> Iterator[tuple[str, str]]:
    """Starts `up` on a free port; yields its address and a tenant's key; stops it.

    Raises CommandError with the server's last words when it does not come up.
    """
    argv = [sys.executable, "-m", "pressrun", "up", "--data", str(data), "--port", "0", *extra]
    process = subprocess.Popen(
        [*die_with_parent("TERM"), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # a terminal's Ctrl-C is for the demo, which then stops this
    )
    try:
        tail = _relay(process, terminal)
        yield _await_ready(process, tail), (data / API_KEY_FILE).read_text().strip()
    finally:
        _stop(process)


def _relay(process: subprocess.Popen[str], terminal: Terminal) -> deque[str]:
    """Shows what the server says, and keeps the last of it."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def copy() -> None:
        for line in process.stderr or ():
            tail.append(line.rstrip())
            terminal.note(f"  {line.rstrip()}")

    threading.Thread(target=copy, name="server-log", daemon=True).start()
    return tail


def _await_ready(process: subprocess.Popen[str], tail: deque[str]) -> str:
    for line in process.stdout or ():
        if line.startswith(READY):
            return line.removeprefix(READY).strip()
    process.wait()
    words = "\n".join(list(tail))
    raise CommandError(f"the demo's server did not come up:\n{words}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
