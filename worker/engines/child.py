"""The supervisor's handle on an engine child. Imports no torch, starts no thread, never waits."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import structlog

from worker.engines.frames import FRAME_LIMIT_BYTES, Pipe, frame_bytes, frames_of
from worker.engines.protocol import (
    Cancel,
    Cancelled,
    Fatal,
    FromEngine,
    Load,
    Ready,
    Row,
    RowsDone,
    Submit,
    ToEngine,
    Unload,
)

CODE_ROOT = Path(__file__).resolve().parents[2]
EXIT_GRACE_SECONDS = 2.0
"""How long a child that closed its pipe may take to exit by itself."""
REAP_SECONDS = 5.0

ENGINE_ENVIRONMENT = {
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
    "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME",
}  # fmt: skip
"""What an engine may inherit; everything else may be a credential."""

ChildState = Literal["loading", "ready", "dead"]
log = structlog.get_logger()


def engine_environment(base: Mapping[str, str], *, offline: bool = True) -> dict[str, str]:
    """The part of ``base`` that an engine child may see; ``offline`` keeps it from the hub."""
    chosen = {name: value for name, value in base.items() if name in ENGINE_ENVIRONMENT}
    if offline:
        chosen["HF_HUB_OFFLINE"] = "1"
    return chosen


class ChildDied(Exception):
    """The engine child is gone. Exactly one of ``exit_code`` and ``signal`` is set, unless the
    kernel didn't let go of it; ``fatal`` is what it said before, if anything."""

    def __init__(self, returncode: int | None, fatal: Fatal | None) -> None:
        self.exit_code = returncode if returncode is not None and returncode >= 0 else None
        self.signal = -returncode if returncode is not None and returncode < 0 else None
        self.fatal = fatal
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        if self.signal is not None:
            with contextlib.suppress(ValueError):
                return f"the engine child died by {signal.Signals(self.signal).name}"
            return f"the engine child died by signal {self.signal}"
        code = f" ({self.fatal.code})" if self.fatal else ""
        return f"the engine child exited with {self.exit_code}{code}"


class EngineChild:
    """One engine child process: its state, its rows, and the two ways to end it.

    Wait on ``pipe`` (``multiprocessing.connection.wait``), then call ``receive``. A supervisor's
    thread may hold any number of them; none of the methods blocks on the child, except that
    ``receive`` and ``kill`` wait for a dying process to be gone.
    """

    def __init__(self, process: subprocess.Popen[bytes], pipe: Pipe, load: Load) -> None:
        self._process = process
        self._died: ChildDied | None = None
        self._fatal: Fatal | None = None
        self.pipe = pipe
        self.load = load
        self.state: ChildState = "loading"
        self.ready: Ready | None = None
        self.last_heard = time.monotonic()
        """``time.monotonic()`` of the last message, at first of the spawn."""
        self.rows_in_flight: dict[tuple[int, int], set[int]] = {}
        """Row indexes submitted and not answered, by (shard, epoch); kept when the child dies."""

    @classmethod
    def spawn(
        cls, load: Load, *, environment: Mapping[str, str], python: str = sys.executable
    ) -> EngineChild:
        """Starts a child and sends it ``load``; ``Ready`` comes by ``receive``.

        Call it from a thread that lives as long as the supervisor: on Linux the kernel kills the
        child with it. The child's environment is exactly ``environment``
        (see ``engine_environment``) and its working directory is the folder of the code, so a
        local ``load.source`` is an absolute path. Raises OSError.
        """
        ours, theirs = socket.socketpair()
        command = [python, "-m", "worker.engines.host", str(theirs.fileno())]
        with theirs:
            try:
                process = subprocess.Popen(
                    command,
                    env=dict(environment),
                    cwd=CODE_ROOT,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # a library's chatter belongs with the logs
                    start_new_session=True,  # a terminal's Ctrl-C is for the supervisor
                )
            except BaseException:
                ours.close()
                raise
        child = cls(process, Pipe(ours), load)
        child._send(load)
        log.info("engine_spawned", pid=child.pid, model=load.model, engine=load.engine)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def capacity(self) -> int:
        """How many rows it wants to hold at once; 0 until it is ready."""
        return self.ready.capacity if self.ready else 0

    @property
    def resident_bytes(self) -> int:
        """What the model holds in memory; 0 until it is ready."""
        return self.ready.resident_bytes if self.ready else 0

    def submit(self, shard: int, epoch: int, rows: Sequence[Row]) -> None:
        """Sends rows, now and as the pipe gets room. Raises ValueError for a row that is too
        large or in flight already, and ChildDied once the child is known to be dead."""
        in_flight = self.rows_in_flight.get((shard, epoch), set())
        indexes = {row.index for row in rows}
        if len(indexes) < len(rows) or indexes & in_flight:
            raise ValueError(f"a row of shard {shard} was submitted twice")
        if any(frame_bytes(row) > FRAME_LIMIT_BYTES for row in rows):
            raise ValueError(f"a row of shard {shard} is larger than {FRAME_LIMIT_BYTES} bytes")
        self._send(*(Submit(shard, epoch, batch) for batch in frames_of(rows)))
        if indexes:
            self.rows_in_flight[shard, epoch] = in_flight | indexes

    def cancel(self, shard: int, epoch: int) -> None:
        """Has the shard's unfinished rows dropped; ``Cancelled`` answers. Raises ChildDied."""
        self._send(Cancel(shard, epoch))

    def unload(self) -> None:
        """Has the child exit once its step is done: ``receive`` then raises ChildDied with exit
        code 0. Rows in flight are dropped. Raises ChildDied."""
        self._send(Unload())

    def receive(self) -> list[FromEngine]:
        """Every message that is there by now, possibly none.

        Raises ChildDied when the child is dead and all that it said has been returned.
        """
        if self._died is not None:
            raise self._died
        exited = self._process.poll() is not None  # asked before reading, so no word is lost
        self.pipe.flush()
        messages = self.pipe.read()
        if messages:
            self.last_heard = time.monotonic()
            for message in messages:
                self._note(message)
        elif self.pipe.garbled:
            self._fatal = Fatal("protocol_error", "the child sent something unreadable")
            raise self._bury(0)
        elif self.pipe.ended or (exited and self.pipe.drained):
            raise self._bury(EXIT_GRACE_SECONDS)
        return messages

    def kill(self) -> None:
        """SIGKILLs the child and whatever it started, reaps it and closes the pipe. Idempotent."""
        if self._died is None:
            self._bury(0)

    def _send(self, *messages: ToEngine) -> None:
        if self._died is not None:
            raise self._died
        for message in messages:
            self.pipe.put(message)
        self.pipe.flush()

    def _note(self, message: FromEngine) -> None:
        match message:
            case Ready():
                self.ready, self.state = message, "ready"
            case RowsDone(results):
                for result in results:
                    indexes = self.rows_in_flight.get((result.shard, result.epoch), set())
                    indexes.discard(result.index)
                    if not indexes:
                        self.rows_in_flight.pop((result.shard, result.epoch), None)
            case Cancelled(shard, epoch):
                self.rows_in_flight.pop((shard, epoch), None)
            case Fatal():
                self._fatal = message

    def _bury(self, grace_seconds: float) -> ChildDied:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_seconds)
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(REAP_SECONDS)
        self.pipe.close()
        self.state = "dead"
        self._died = ChildDied(self._process.returncode, self._fatal)
        log.info(
            "engine_died",
            pid=self.pid,
            model=self.load.model,
            exit_code=self._died.exit_code,
            signal=self._died.signal,
            fatal=self._fatal.code if self._fatal else None,
        )
        return self._died
