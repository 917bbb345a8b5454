"""A training's process tree, as the supervisor holds it: started, asked to stop, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog

from worker.engines.child import CODE_ROOT
from worker.tuning.messages import LOG, STOP

log = structlog.get_logger()

GONE_SECONDS = 20.0
LONGEST_LOG = 8 * 2**20
TAIL_BYTES = 4096
_OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError", "not enough memory", "out of memory")
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process tree ended."""

    code: int
    """Of the first rank that failed; meaningless when ``signal`` is set."""
    signal: int | None
    out_of_memory: bool

    def __str__(self) -> str:
        if self.out_of_memory:
            return "the training ran out of memory"
        if self.signal is None:
            return f"the training's process exited with {self.code}"
        with contextlib.suppress(ValueError):
            return f"the training's process died by {signal.Signals(self.signal).name}"
        return f"the training's process died by signal {self.signal}"


class TrainingProcess:
    """The launcher and its ranks. None of the methods but ``kill`` waits."""

    def __init__(
        self,
        folder: Path,
        *,
        processes: int,
        environment: Mapping[str, str],
        python: str = sys.executable,
    ) -> None:
        """Starts the tree; its environment is exactly ``environment`` and its output goes to
        ``training.log`` in the folder. Raises OSError."""
        self.folder = folder
        self._kills_before = _kernel_kills()
        with (folder / LOG).open("ab") as output:
            self._launcher = subprocess.Popen(
                [python, "-m", "worker.tuning.launcher", str(folder), str(processes)],
                env=dict(environment),
                cwd=CODE_ROOT,
                stdin=subprocess.PIPE,  # held open by this process alone: its end is theirs
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._launcher.pid

    def poll(self) -> Exit | None:
        """How it ended; None while it runs."""
        code = self._launcher.poll()
        if code is None:
            return None
        killed_by = -code if code < 0 else code - 128 if code > 128 else None  # noqa: PLR2004
        return Exit(code, killed_by, self._out_of_memory(killed_by))

    def ask_to_stop(self) -> None:
        """Has it save a checkpoint and leave; idempotent."""
        (self.folder / STOP).touch()

    def kill(self) -> None:
        """Kills every process of the tree and returns when they are gone. Idempotent."""
        tree = self._tree()
        with contextlib.suppress(OSError):
            if self._launcher.stdin is not None:
                self._launcher.stdin.close()
        deadline = time.monotonic() + GONE_SECONDS
        while tree:
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(tree, timeout=0.5)
            tree = self._tree()
            if tree and time.monotonic() > deadline:
                log.error("training_not_gone", pids=[process.pid for process in tree])
                break
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._launcher.wait(1.0)

    def trim_log(self) -> None:
        """Keeps the end of a log that has become long. The ranks append, so they write on."""
        path = self.folder / LOG
        with contextlib.suppress(OSError):
            if path.stat().st_size > LONGEST_LOG:
                tail = _tail(path)
                os.truncate(path, 0)
                with path.open("ab") as output:
                    output.write(tail)

    def log_tail(self) -> str:
        """The last of what it printed."""
        return _tail(self.folder / LOG).decode(errors="replace").replace("\0", "").strip()

    def _tree(self) -> list[psutil.Process]:
        """Everything below the launcher, and whatever names this training's folder: nobody else
        knows it, so a process that lost its parents is found too."""
        found: dict[int, psutil.Process] = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            launcher = psutil.Process(self.pid)
            for process in (launcher, *launcher.children(recursive=True)):
                found[process.pid] = process
        for process in psutil.process_iter(["cmdline"]):
            if str(self.folder) in (process.info["cmdline"] or ()):
                found[process.pid] = process
        return [process for process in found.values() if _lives(process)]

    def _out_of_memory(self, killed_by: int | None) -> bool:
        if killed_by == signal.SIGKILL and _kernel_kills() > self._kills_before:
            return True
        last_line = self.log_tail().rpartition("\n")[2]
        return any(sign in last_line for sign in _OUT_OF_MEMORY)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _kernel_kills() -> int:
    """How many processes this machine's kernel has killed for want of memory since it started."""
    try:
        for line in _VMSTAT.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except (OSError, ValueError):
        pass
    return 0


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES)
    except OSError:
        return b""
