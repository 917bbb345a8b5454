"""Child processes that are started again when they die, and that never outlive us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from pressrun.unprivileged import die_with_parent
from pressrun.up import guard
from pressrun.up.child_log import ChildLog
from shared.backoff import delay_seconds

ROOT = Path(__file__).resolve().parents[2]
"""Where ``api``, ``worker`` and ``shared`` are; children run from here."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""A child that lived this long starts its next count of deaths at one."""
LOG_PATIENCE_SECONDS = 1.0
POLL_SECONDS = 0.02

log = structlog.get_logger()


class Guard:
    """The process of ``pressrun.up.guard``; start it, and children, from the main thread.

    (The kernel's parent-death signal, the second line of defence, fires when the *thread* that
    started a child ends.)
    """

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._groups: set[int] = set()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            pass_fds=[self._lock],
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def discard(self, group: int) -> None:
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def check(self) -> None:
        """Replaces a guard that was killed."""
        if self._process.poll() is not None:
            log.warning("guard_restarted")
            self._process = self._start()
            for group in self._groups:
                self._tell(f"+{group}\n")

    def close(self) -> None:
        """Lets the guard end; it kills what is still listed."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


@dataclass(frozen=True)
class ChildSpec:
    """What to run."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    pass_fds: Sequence[int] = ()


class Child:
    """One supervised process, in its own process group. Not thread-safe."""

    def __init__(
        self,
        spec: ChildSpec,
        child_log: ChildLog,
        keeper: Guard,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.log = child_log
        self.deaths = 0
        """In a row, without a settled life in between."""
        self.exit_code: int | None = None
        """Of the last life; below zero for a signal."""
        self._guard = keeper
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._reader = threading.Thread()

    @property
    def pid(self) -> int | None:
        """The process id while it lives."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Raises OSError when the program can't be executed."""
        self._restart_at = None
        process = subprocess.Popen(
            [*die_with_parent("KILL"), *self.spec.argv],
            env=dict(self.spec.environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=list(self.spec.pass_fds),
            process_group=0,
        )
        self._guard.add(process.pid)
        self._process, self._started_at = process, self._clock()
        if process.stdout is not None:
            self._reader = self.log.follow(process.stdout)

    def supervise(self) -> None:
        """Notices a death and, when its back-off has passed, starts the child again."""
        if self._process is not None and (code := self._reap()) is not None:
            self._note_death(_how_it_ended(code))
        elif self._restart_at is not None and self._clock() >= self._restart_at:
            try:
                self.start()
            except OSError as error:
                self._note_death(f"not started: {error.strerror}")
            else:
                log.info("child_restarted", child=self.spec.name, pid=self.pid)

    def _note_death(self, how: str) -> None:
        settled = self._clock() - self._started_at >= SETTLED_SECONDS
        self.deaths = 1 if settled else self.deaths + 1
        delay = delay_seconds(self.deaths, base=FIRST_DELAY_SECONDS, cap=LONGEST_DELAY_SECONDS)
        self._restart_at = self._clock() + delay
        log.error(
            "child_died",
            child=self.spec.name,
            ended=how,
            restart_in_seconds=round(delay, 1),
            log=str(self.log.path),
        )

    def retire(self) -> None:
        """Asks the process to end; it is not started again."""
        self._restart_at = None
        self._signal(signal.SIGTERM)

    def ended(self) -> bool:
        """Whether no process of the child lives."""
        return self._process is None or self._reap() is not None

    def kill(self) -> None:
        """Kills the process and its group, and waits for it; it is not started again."""
        self._restart_at = None
        while not self.ended():
            self._signal(signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _reap(self) -> int | None:
        """The exit code of an ended process; what it left in its group goes with it."""
        if self._process is None:
            return None
        pid = self._process.pid
        # Looked at before it is reaped: until then its number can't be anybody else's.
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        _kill_group(pid)
        self.exit_code = code = self._process.wait()
        self._guard.discard(pid)
        self._reader.join(LOG_PATIENCE_SECONDS)
        self._process = None
        return code


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
