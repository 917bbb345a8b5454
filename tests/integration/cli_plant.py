"""``pressrun up`` as a process, for tests: started, asked, killed, and searched for remains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 180.0
COMMAND_SECONDS = 600.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05


def environment(**settings: str) -> dict[str, str]:
    """Ours without any ``PRESSRUN_``, with ``settings``; the tree is found from any folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRESSRUN_")}
    named = {f"PRESSRUN_{name.upper()}": value for name, value in settings.items()}
    return {**kept, "PYTHONPATH": str(ROOT), **named}


def run_cli(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pressrun", *arguments],
        cwd=cwd,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


class PlantProcess:
    """One ``pressrun up --data DIR`` with the fake model alone."""

    def __init__(self, data: Path, *arguments: str, **settings: str) -> None:
        self.data = data
        self.url = ""
        self.stderr = ""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pressrun", "up", "--data", str(data), "--port", "0"),
                *(arguments or ("--with-fake", "--no-starter-models")),
            ],
            cwd=data.parent,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    def _read_stderr(self) -> None:
        for line in self._process.stderr or ():
            self.stderr += line

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def api_key(self) -> str:
        return (self.data / "api-key").read_text().strip()

    def wait_ready(self) -> str:
        """The address from the ready line; fails the test when the process ends first."""
        timer = threading.Timer(READY_SECONDS, self._process.kill)
        timer.start()
        try:
            for line in self._process.stdout or ():
                if line.startswith("ready "):
                    self.url = line.split()[1]
                    return self.url
        finally:
            timer.cancel()
        self._reader.join(5)
        raise AssertionError(f"not ready:\n{self.stderr}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there: {sorted(self.children())}\n{self.stderr}") from None
        self._reader.join(5)
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """``kill -9`` of the one process."""
        self._process.kill()
        self._process.wait()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A client command against this server."""
        return run_cli(*arguments, cwd=self.data.parent, url=self.url, api_key=self.api_key)

    def children(self) -> dict[str, int]:
        """Process ids of the direct children, by what they are."""
        found: dict[str, int] = {}
        for pid in processes_of(self.data):
            line = command_line(pid)
            for name, sign in _SIGNS.items():
                if sign in line and parent(pid) == self.pid:
                    found[name] = pid
        return found


_SIGNS = {
    "api": "gunicorn",
    "worker": "worker --pools text",
    "trainer": "worker --pools train",
    "upkeep": "worker --pools upkeep",
    "postgres": "bin/postgres -D",
}


@contextmanager
def plant(data: Path, *arguments: str, **settings: str) -> Iterator[PlantProcess]:
    """A started plant; whatever the test does to it, nothing of it is left."""
    process = PlantProcess(data, *arguments, **settings)
    try:
        yield process
    finally:
        process.kill()
        for pid in processes_of(data):
            _kill(pid)


def processes_of(data: Path) -> list[int]:
    """Every living process that has to do with the folder: by its command, environment or place."""
    return [pid for pid in _pids() if pid != os.getpid() and _is_about(pid, str(data))]


def wait_until_gone(data: Path, seconds: float) -> list[str]:
    """What is still there of the folder's processes after at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(data)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return [f"{pid}: {command_line(pid)}" for pid in left]


def command_line(pid: int) -> str:
    return _read(pid, "cmdline").replace("\0", " ").strip()


def parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _is_about(pid: int, data: str) -> bool:
    state = _read(pid, "stat").rpartition(")")[2].split()
    if not state or state[0] in "ZX":
        return False
    try:
        place = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        place = ""
    # As whole paths: another test's folder may begin with the same characters.
    words = [*_read(pid, "cmdline").split("\0"), *_read(pid, "environ").split("\0"), place]
    return any(word.endswith(data) or f"{data}/" in word for word in words)


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
