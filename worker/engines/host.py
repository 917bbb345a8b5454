"""The engine child's main: ``python -m worker.engines.host FD``, started by ``EngineChild``.

``FD`` is the inherited end of a socket pair that carries the frames of
``multiprocessing.connection`` with ``worker.engines.protocol`` messages in them. The process
lives for one model and never longer than its supervisor:

- a reader thread takes every frame off the socket at once, so the supervisor's writes get through
  during a long step, and ends the process when the supervisor's end closes;
- the kernel kills it when the supervisor dies (Linux), so a loop in C that holds the
  interpreter's lock doesn't keep it alive either;
- SIGINT and SIGTERM are ignored: the supervisor decides.

Exit codes: 0 after Unload, 1 otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import queue
import resource
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog

from shared.telemetry import configure_logging
from worker.engines import protocol
from worker.engines.base import Engine, EngineFailed, OnProgress, ReportsProgress, TellsText
from worker.engines.frames import FRAME_LIMIT_BYTES, frame_bytes, frames_of
from worker.engines.protocol import FromEngine, Load, RowResult, ToEngine
from worker.engines.registry import create_engine
from worker.engines.standing_back import is_patient, stand_back
from worker.engines.throttle import Throttle
from worker.engines.working_time import WorkingTime

BEAT_SECONDS = 1.0

CreateEngine = Callable[[Load, OnProgress], Engine]
log = structlog.get_logger()


class SupervisorGone(Exception):
    """Nobody reads the pipe any more."""


class Inbox:
    """What the supervisor said, read by a thread of its own.

    A frame that can't be decoded is kept as its error, and raised where the message would have
    been taken.
    """

    def __init__(self, pipe: Connection, on_end: Callable[[int], object]) -> None:
        """``on_end`` is called in the thread, with an exit code, once the other end is closed."""
        self._pipe = pipe
        self._on_end = on_end
        self._messages: queue.SimpleQueue[ToEngine | Exception] = queue.SimpleQueue()
        self._decode = msgspec.msgpack.Decoder(ToEngine).decode
        threading.Thread(target=self._read, name="pipe-reader", daemon=True).start()

    def next(self) -> ToEngine:
        """Waits for a message. Raises EngineFailed for a frame that isn't one."""
        return self._opened(self._messages.get())

    def waiting(self) -> Iterator[ToEngine]:
        """The messages that have come by now, without waiting. Raises as ``next`` does."""
        for _ in range(self._messages.qsize()):
            yield self._opened(self._messages.get_nowait())

    def _opened(self, message: ToEngine | Exception) -> ToEngine:
        if isinstance(message, Exception):
            raise EngineFailed("protocol_error", f"unreadable frame: {type(message).__name__}")
        return message

    def _read(self) -> None:
        exit_code = 1
        try:
            while True:
                message: ToEngine = self._decode(self._pipe.recv_bytes(FRAME_LIMIT_BYTES))
                if isinstance(message, protocol.Unload):
                    exit_code = 0
                self._messages.put(message)
        except (EOFError, ConnectionError):
            pass
        except Exception as error:  # not a frame or not a message: there is no way to go on
            self._messages.put(error)
            with contextlib.suppress(OSError):
                while os.read(self._pipe.fileno(), 1 << 16):
                    pass
        self._on_end(exit_code)


class Host:
    """One engine and its conversation with the supervisor."""

    def __init__(
        self,
        pipe: Connection,
        inbox: Inbox,
        *,
        create: CreateEngine = create_engine,
        clock: Callable[[], float] = time.monotonic,
        on_patient: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_patient`` is called when the engine that was loaded may let others go first."""
        self._pipe = pipe
        self._inbox = inbox
        self._create = create
        self._on_patient = on_patient
        self._clock = clock
        self._beat_at = clock()
        self._tokens_n = 0
        self._throttle = Throttle()
        self._working = WorkingTime()

    def run(self) -> int:
        """Serves until Unload, or until the engine can't go on; returns the exit code."""
        loaded = False
        try:
            engine = self._load()
            loaded = True
            self._serve(engine)
        except SupervisorGone:
            return 1
        except Exception as error:
            fatal = fatal_of(error, quote=not loaded)
            log.error("engine_failed", code=fatal.code, where=_where(error))
            with contextlib.suppress(SupervisorGone):
                self._send(fatal)
            return 1
        return 0

    def _load(self) -> Engine:
        load = self._inbox.next()
        if not isinstance(load, Load):
            raise EngineFailed("protocol_error", f"{type(load).__name__} came before Load")
        engine = self._create(load, self._on_progress)
        if is_patient(load.engine, engine):
            self._on_patient()
        self._send(protocol.Ready(engine.capacity, engine.resident_bytes, engine.detail))
        return engine

    def _on_progress(self, fraction: float, detail: str) -> None:
        self._send(protocol.Loading(fraction, detail))

    def _serve(self, engine: Engine) -> None:
        reporting = engine if isinstance(engine, ReportsProgress) else None
        telling = engine if isinstance(engine, TellsText) else None
        while True:
            messages = self._inbox.waiting() if engine.busy else [self._inbox.next()]
            for message in messages:
                if isinstance(message, protocol.Unload):
                    return
                self._heed(engine, message)
            if engine.busy:
                with self._working.step():
                    results = engine.step()
                if reporting is not None:
                    self._send_progress(reporting, results)
                if telling is not None and (told := telling.deltas()):
                    self._send(protocol.Speaking(told))
                self._send_results(results)
                self._beat(engine)

    def _heed(self, engine: Engine, message: ToEngine) -> None:
        match message:
            case protocol.Submit(shard, epoch, rows):
                if not engine.busy:
                    self._beat_at, self._tokens_n = self._clock(), 0
                self._working.take(shard, epoch, rows)
                answers = [engine.submit(shard, epoch, row) for row in rows]
                self._send_results([answer for answer in answers if answer is not None])
            case protocol.Cancel(shard, epoch):
                engine.cancel(shard, epoch)
                self._throttle.forget_shard(shard, epoch)
                self._working.forget_shard(shard, epoch)
                self._send(protocol.Cancelled(shard, epoch))
            case _:
                raise EngineFailed("protocol_error", f"{type(message).__name__} came twice")

    def _send_progress(self, engine: ReportsProgress, results: Sequence[RowResult]) -> None:
        told = self._throttle.pass_on(engine.progress(), self._clock())
        self._throttle.forget(results)
        if told:
            self._send(protocol.Progressing(told))

    def _send_results(self, results: Sequence[RowResult]) -> None:
        self._tokens_n += sum(result.output_tokens for result in results)
        for batch in frames_of(_within_limit(result) for result in self._working.told(results)):
            self._send(protocol.RowsDone(batch))

    def _beat(self, engine: Engine) -> None:
        elapsed = self._clock() - self._beat_at
        if elapsed < BEAT_SECONDS:
            return
        rate = self._tokens_n / elapsed
        self._beat_at, self._tokens_n = self._clock(), 0
        self._send(protocol.Beat(engine.active_rows, engine.waiting_rows, rate))

    def _send(self, message: FromEngine) -> None:
        try:
            protocol.send(self._pipe, message)
        except OSError as error:
            raise SupervisorGone from error


def fatal_of(error: Exception, *, quote: bool) -> protocol.Fatal:
    """What the supervisor is told. Unless ``quote``, an unforeseen error's own words are left
    out: they may hold a tenant's text."""
    if isinstance(error, EngineFailed):
        return protocol.Fatal(error.code, error.message)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return protocol.Fatal(protocol.DISK_FULL, f"no room left at {_where(error)[-1]}")
    name = type(error).__name__
    # torch's OutOfMemoryError is told by its name: this module must not import torch.
    code = "out_of_memory" if name in ("MemoryError", "OutOfMemoryError") else "engine_error"
    said = f": {error}"[:500] if quote else ""
    return protocol.Fatal(code, f"{name} at {_where(error)[-1]}{said}")


def _where(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames] or ["unknown"]


def _within_limit(result: RowResult) -> RowResult:
    size = frame_bytes(result)
    if size <= FRAME_LIMIT_BYTES:
        return result
    message = f"the result has {size} bytes, the limit is {FRAME_LIMIT_BYTES}"
    error = {"message": message, "type": "server_error", "param": None, "code": "result_too_large"}
    body = msgspec.json.encode({"error": error})
    return RowResult(result.shard, result.epoch, result.index, 500, body, result.input_tokens)


# --- the process ------------------------------------------------------------------------------


def main() -> NoReturn:
    """Serves the descriptor named by the first argument until told to stop."""
    fd = int(sys.argv[1])
    _die_with_supervisor(fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.set_inheritable(fd, False)  # a grandchild that held it would hide this process's death
    # A core file would be as large as the model, and hold prompts.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    faulthandler.enable()
    _volunteer_for_oom_killer()
    configure_logging("info", "json", process="engine")
    pipe = Connection(fd)
    _leave(Host(pipe, Inbox(pipe, _leave), on_patient=stand_back).run())


def _leave(code: int) -> NoReturn:
    # Not sys.exit: a thread of a device library must not keep a dead engine's memory.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _die_with_supervisor(fd: int) -> None:
    """Has the kernel send SIGKILL when the thread that spawned this process is gone."""
    if sys.platform != "linux":
        return  # the reader thread still sees the pipe close
    import ctypes

    pr_set_pdeathsig = 1
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The supervisor made the socket pair. If it died before the call above, no signal will come.
    with socket.socket(fileno=os.dup(fd)) as pair:
        credentials = pair.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if os.getppid() != struct.unpack("3i", credentials)[0]:
        os._exit(1)


def _volunteer_for_oom_killer() -> None:
    """An engine can be respawned: it should go before the supervisor or the database does."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    main()
