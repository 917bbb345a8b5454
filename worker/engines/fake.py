"""A deterministic engine without weights: the same body gives the same bytes, on any machine.

Tests and benchmarks run the whole plant on it. ``fake_response`` is its arithmetic as a pure
function, so that a plain loop around it is what the plant can be compared with.

The last message, prompt or input of a body may hold directives, which script the row's fate:

    [[delay 0.2]]          finishes that many seconds after it was submitted; with ``stream: true``
                           its words are told one by one meanwhile
    [[hold TOKEN]]         finishes when there is a file ``hold-TOKEN`` in ``scratch``; with
                           ``stream: true`` half of it is told before
    [[sleep-forever]]      never finishes; can be cancelled
    [[error 400 my_code]]  fails as a row
    [[crash]]              the process dies by SIGSEGV
    [[crash-once TOKEN]]   the same, but only the first time (a marker file in ``scratch``)
    [[exit 3]]             the process exits at once with that code
    [[hang]]               an endless loop in C that holds the interpreter's lock
    [[oom]]                MemoryError from the step
    [[fatal my_code]]      EngineFailed from the step
    [[bad-file hash]]      describes its first file wrongly: ``hash``, ``size``, ``outside``,
                           ``link``, ``missing``, ``id``, ``role``

Rows for pictures, speech and video write tiny real files (``worker.engines.fake_media``); with a
delay they report their progress in steps, and the previews they were asked for.

Whoever may submit a row may write them, so a catalog offers this engine for trials only.
"""

from __future__ import annotations

import heapq
import math
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from shared.errors import InvalidRequest
from worker.engines.base import EngineFailed, OnProgress
from worker.engines.fake_desk import Where, spoiled
from worker.engines.fake_directives import RowFailed, delay_seconds, directives_of
from worker.engines.fake_media import fake_media, serves_media
from worker.engines.fake_progress import Clockwork
from worker.engines.fake_responses import fake_response, fake_result
from worker.engines.fake_speech import Speeches
from worker.engines.protocol import Load, Row, RowDelta, RowProgress, RowResult

__all__ = ["FakeEngine", "FakeSettings", "create", "fake_response", "fake_result"]

LONGEST_NAP_SECONDS = 0.02
_STATUSES = range(400, 600)
_SERVER_ERROR = 500


class FakeSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``Load.settings`` of this engine."""

    seconds_per_row: float = 0.0
    """How long each row takes. Rows take it side by side, as in an engine with enough slots."""
    rows_per_step: int = 1024
    capacity: int = 4096
    resident_bytes: int = 1 << 20
    """What it claims to hold."""
    load_seconds: float = 0.0
    load_error: str | None = None
    """A code to fail the load with."""
    default_max_tokens: int | None = None
    scratch: str | None = None
    """A directory for the markers of ``[[crash-once]]`` and ``[[hold]]``."""


class _Work(NamedTuple):
    due: float
    number: int
    """Order of submission; it also keeps the heap from comparing further."""
    shard: int
    epoch: int
    row: Row
    directives: list[list[str]]


_REFUSALS = (RowFailed, InvalidRequest, msgspec.MsgspecError, OSError)


def create(load: Load, progress: OnProgress) -> FakeEngine:
    """The factory that ``worker.engines.registry`` names."""
    try:
        settings = msgspec.convert(load.settings, FakeSettings)
    except msgspec.ValidationError as error:
        raise EngineFailed("invalid_settings", str(error)) from None
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < settings.load_seconds:
        progress(elapsed / settings.load_seconds, "pretending")
        time.sleep(min(LONGEST_NAP_SECONDS, settings.load_seconds - elapsed))
    if settings.load_error is not None:
        raise EngineFailed(settings.load_error, "the fake engine was told to fail its load")
    progress(1.0, "loaded")
    return FakeEngine(load.model, settings, spool=load.spool, public_url=load.public_url)


class FakeEngine:
    """An ``Engine``. A step runs the rows that are due, or naps for at most 20 ms."""

    def __init__(
        self,
        model: str,
        settings: FakeSettings,
        *,
        spool: str = "",
        public_url: str = "",
        clock: Callable[[], float] = time.monotonic,
        nap: Callable[[float], None] = time.sleep,
    ) -> None:
        self._model = model
        self._where = Where(model, spool, public_url)
        self._clockwork = Clockwork(self._where)
        self._speeches = Speeches()
        self._settings = settings
        self._clock = clock
        self._nap = nap
        self._work: list[_Work] = []
        self._held: list[tuple[Path, _Work]] = []
        self._submitted_n = 0

    @property
    def capacity(self) -> int:
        return self._settings.capacity

    @property
    def resident_bytes(self) -> int:
        return self._settings.resident_bytes

    @property
    def detail(self) -> dict[str, Any]:
        return {"device": "none", "rows_per_step": self._settings.rows_per_step}

    @property
    def busy(self) -> bool:
        return bool(self._work or self._held)

    @property
    def active_rows(self) -> int:
        return min(len(self._work) + len(self._held), self._settings.rows_per_step)

    @property
    def waiting_rows(self) -> int:
        return len(self._work) + len(self._held) - self.active_rows

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        try:
            directives = directives_of(row)
            seconds = self._settings.seconds_per_row + delay_seconds(directives)
            held_by = self._held_by(directives)
            if (seconds or held_by) and self._speeches.wanted(row):
                self._start_speech(shard, epoch, row, 0.0 if held_by else seconds)
        except _REFUSALS as error:
            return _refused(shard, epoch, row.index, error)
        due = self._clock() + seconds if seconds else -math.inf
        self._submitted_n += 1
        if seconds and serves_media(row.endpoint):
            self._clockwork.start(shard, epoch, row, self._clock(), seconds)
        work = _Work(due, self._submitted_n, shard, epoch, row, directives)
        if held_by is not None:
            self._held.append((held_by, work))
        else:
            heapq.heappush(self._work, work)
        return None

    def _start_speech(self, shard: int, epoch: int, row: Row, seconds: float) -> None:
        limit = self._settings.default_max_tokens
        answer = fake_result(row.endpoint, row.body, self._model, limit).body
        self._speeches.start((shard, epoch, row.index), row, answer, self._clock(), seconds)

    def _held_by(self, directives: list[list[str]]) -> Path | None:
        """The file that the row waits for."""
        for directive in directives:
            if directive[0] == "hold" and len(directive) > 1:
                return self._marker("hold", directive[1])
        return None

    def _marker(self, name: str, token: str) -> Path:
        if self._settings.scratch is None:
            raise RowFailed("bad_directive", f"[[{name}]] needs the setting 'scratch'")
        return Path(self._settings.scratch) / f"{name}-{token}"

    def deltas(self) -> list[RowDelta]:
        return self._speeches.deltas(self._clock())

    def progress(self) -> list[RowProgress]:
        return self._clockwork.tick(self._clock())

    def cancel(self, shard: int, epoch: int) -> None:
        self._clockwork.stop(shard, epoch)
        self._speeches.stop(shard, epoch)
        self._held = [h for h in self._held if (h[1].shard, h[1].epoch) != (shard, epoch)]
        self._work = [w for w in self._work if (w.shard, w.epoch) != (shard, epoch)]
        heapq.heapify(self._work)

    def step(self) -> list[RowResult]:
        now = self._clock()
        results: list[RowResult] = []
        self._release()
        while (
            self._work and self._work[0].due <= now and len(results) < self._settings.rows_per_step
        ):
            results.append(self._run(heapq.heappop(self._work)))
        if not results and self.busy:
            due_in = self._work[0].due - now if self._work else math.inf
            self._nap(min(LONGEST_NAP_SECONDS, due_in))
        return results

    def _release(self) -> None:
        if self._held:
            free = [held for held in self._held if held[0].exists()]
            self._held = [held for held in self._held if held not in free]
            for _, work in free:
                heapq.heappush(self._work, work)

    def _run(self, work: _Work) -> RowResult:
        row = work.row
        self._speeches.stop(work.shard, work.epoch, row.index)
        try:
            for directive in work.directives:
                self._obey(directive)
            if serves_media(row.endpoint):
                return self._run_media(work)
            result = fake_result(
                row.endpoint, row.body, self._model, self._settings.default_max_tokens
            )
        except _REFUSALS as error:
            return _refused(work.shard, work.epoch, row.index, error)
        return RowResult(work.shard, work.epoch, row.index, 200, *result)

    def _run_media(self, work: _Work) -> RowResult:
        self._clockwork.stop(work.shard, work.epoch, work.row.index)
        made = fake_media(work.row, self._where)
        for directive in work.directives:
            if directive[0] == "bad-file":
                made.files[0] = spoiled(made.files[0], *directive[1:])
        return RowResult(
            work.shard, work.epoch, work.row.index, 200, made.body, made.input_tokens,
            files=made.files,
        )  # fmt: skip

    def _obey(self, directive: list[str]) -> None:
        match directive:
            case ["delay", _] | ["hold", _] | ["sleep-forever"]:
                pass  # waited for already
            case ["bad-file", _]:
                pass  # spoiled once it is made
            case ["error", status, code] if status.isdecimal() and int(status) in _STATUSES:
                raise RowFailed(code, "the row asked for this error", int(status))
            case ["crash"] | ["crash-once", _]:
                self._crash(*directive[1:])
            case ["exit", code] if code.isdecimal():
                os._exit(int(code))
            case ["hang"]:
                re.match(r"(?:a+)+$", "a" * 64 + "!")
            case ["oom"]:
                raise MemoryError
            case ["fatal", code]:
                raise EngineFailed(code, "the row asked for this failure")
            case [name, *_]:
                raise RowFailed("bad_directive", f"wrong arguments for [[{name}]]")

    def _crash(self, token: str | None = None) -> None:
        if token is not None:
            try:
                self._marker("crash-once", token).touch(exist_ok=False)
            except FileExistsError:
                return
        os.kill(os.getpid(), signal.SIGSEGV)


def _refused(shard: int, epoch: int, index: int, error: Exception) -> RowResult:
    code, status = getattr(error, "code", "invalid_request"), getattr(error, "status", 400)
    kind = "invalid_request_error" if status < _SERVER_ERROR else "server_error"
    body = {"error": {"message": str(error), "type": kind, "param": None, "code": code}}
    return RowResult(shard, epoch, index, status, msgspec.json.encode(body))
