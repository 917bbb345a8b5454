"""Reading along: one thread asks for what all jobs with a stream said, in one query."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Condition, Thread

import structlog
from sqlalchemy import Engine

from shared.db.security import acting_for
from shared.db.streams import Place, Read, read_deltas

log = structlog.get_logger()

POLL_SECONDS = 0.05
PAUSES = 10
"""How many times as long as its question took the thread pauses at least."""


class Reading:
    """One stream's view of its job."""

    def __init__(self, place: Place) -> None:
        self.place = place
        """How far it was read; the thread's alone."""
        self._news: SimpleQueue[Read | None] = SimpleQueue()

    def next(self, seconds: float) -> Read | None:
        """What the job said since, or its end; None when the time is up, or when the process is to
        stop. Of one reading, one thread asks."""
        with suppress(Empty):
            return self._news.get(timeout=max(0.0, seconds))
        return None

    def tell(self, news: Read | None) -> None:
        if news is not None and news.deltas:
            last = news.deltas[-1]
            self.place = self.place._replace(epoch=last.epoch, seq=last.seq)
        self._news.put(news)


class DeltaReader:
    """Keeps every open stream up to date. The thread starts with the first of them, so in the
    process that serves it, and asks nothing while there is none."""

    def __init__(
        self,
        read: Callable[[Sequence[Place]], Mapping[int, Read]],
        *,
        stopping: Callable[[], bool],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """``read`` finds what there is beyond each place, by its number; once ``stopping`` is
        true, everybody is woken."""
        self._read = read
        self._stopping = stopping
        self._poll_seconds = poll_seconds
        self._readings: list[Reading] = []
        self._changed = Condition()
        self._thread: Thread | None = None
        self._closed = False

    @contextmanager
    def follow(self, tenant_id: str, job_id: str) -> Iterator[Reading]:
        """The tenant's job as it is told from its beginning, for the length of the block."""
        reading = Reading(Place(tenant_id, job_id))
        with self._changed:
            self._readings.append(reading)
            if self._thread is None and not self._closed:
                self._thread = Thread(target=self._watch, name="delta-reader", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield reading
        finally:
            self._leave(reading)

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _leave(self, reading: Reading) -> None:
        with self._changed:
            self._readings = [other for other in self._readings if other is not reading]

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._readings and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                readings = list(self._readings)
            if self._stopping():
                for reading in readings:
                    reading.tell(None)
                    self._leave(reading)
                continue
            began = time.monotonic()
            self._tell(readings)
            time.sleep(max(self._poll_seconds, PAUSES * (time.monotonic() - began)))

    def _tell(self, readings: list[Reading]) -> None:
        try:
            found = self._read([reading.place for reading in readings])
        except Exception as error:  # without this thread, no stream goes on
            log.warning("delta_reader_failed", error=type(error).__name__)
            return
        for number, news in found.items():
            readings[number].tell(news)
            if news.ended:
                self._leave(readings[number])


def make_delta_reader(engine: Engine, *, stopping: Callable[[], bool]) -> DeltaReader:
    """A reader of the database; ``engine`` must autocommit."""

    def read(places: Sequence[Place]) -> Mapping[int, Read]:
        tenants = {place.tenant_id for place in places}
        with acting_for(*tenants), engine.connect() as connection:
            return read_deltas(connection, places)

    return DeltaReader(read, stopping=stopping)
