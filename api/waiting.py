"""Long-polls: one thread asks about all awaited jobs in one query, whoever waits for them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Condition, Event, Thread

import structlog
from sqlalchemy import Engine

from api.limits import MAX_WAITING_REQUESTS
from shared.db.jobs import find_ended
from shared.errors import TooManyRequests

log = structlog.get_logger()

Sleep = Callable[[str, float], None]

POLL_SECONDS = 0.1


class Waiter:
    """Lets requests sleep until a job has ended. The thread starts with the first of them, so in
    the process that serves it, and asks nothing while nobody waits."""

    def __init__(
        self,
        find_ended_jobs: Callable[[list[str]], list[str]],
        *,
        poll_seconds: float = POLL_SECONDS,
        max_waiting: int = MAX_WAITING_REQUESTS,
    ) -> None:
        self._find_ended = find_ended_jobs
        self._poll_seconds = poll_seconds
        self._max_waiting = max_waiting
        # A tenant whose jobs take for ever leaves some places to the others.
        self._max_of_tenant = max_waiting - max_waiting // 4
        self._of_tenant: Counter[str] = Counter()
        self._awaited: dict[str, list[Event]] = {}
        self._waiting = 0
        self._changed = Condition()
        self._thread: Thread | None = None
        self._closed = False
        self._serving: Callable[[], bool] = lambda: True

    def wait(self, tenant_id: str, job_id: str, seconds: float) -> None:
        """Returns once the job has ended, after ``seconds``, or at once when too many wait."""
        with suppress(TooManyRequests), self.place(tenant_id) as sleep:
            sleep(job_id, seconds)

    @contextmanager
    def place(self, tenant_id: str) -> Iterator[Sleep]:
        """A place among those who may wait, for the length of the block: its holder can submit a
        job and be sure to be able to wait for it. No tenant can have all of them. Raises
        TooManyRequests.

        Gives a function that returns once the job has ended, or after so many seconds.
        """
        with self._changed:
            if (
                self._closed
                or self._waiting >= self._max_waiting
                or self._of_tenant[tenant_id] >= self._max_of_tenant
            ):
                raise TooManyRequests("too many calls wait for their results; try again")
            self._waiting += 1
            self._of_tenant[tenant_id] += 1
        try:
            yield self._sleep
        finally:
            with self._changed:
                self._waiting -= 1
                self._of_tenant[tenant_id] -= 1
                self._of_tenant += Counter()  # forgets tenants without any

    def _sleep(self, job_id: str, seconds: float) -> None:
        ended = Event()
        with self._changed:
            if self._closed:
                return
            self._awaited.setdefault(job_id, []).append(ended)
            if self._thread is None:
                self._thread = Thread(target=self._watch, name="job-waiter", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            ended.wait(seconds)
        finally:
            self._leave(job_id, ended)

    @property
    def waiting(self) -> int:
        """How many wait at this moment."""
        with self._changed:
            return self._waiting

    def serve_while(self, serving: Callable[[], bool]) -> None:
        """Lets everybody go as soon as ``serving`` is false: the process is to stop."""
        self._serving = serving

    def close(self) -> None:
        """Lets everybody go and ends the thread."""
        with self._changed:
            self._closed = True
            self._release(list(self._awaited))
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _leave(self, job_id: str, ended: Event) -> None:
        with self._changed:
            events = self._awaited.get(job_id, [])
            if ended in events:
                events.remove(ended)
            if not events:
                self._awaited.pop(job_id, None)

    def _release(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            for event in self._awaited.get(job_id, []):
                event.set()

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._awaited and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                asked = list(self._awaited)
            ended = self._ask(asked) if self._serving() else asked
            with self._changed:
                self._release(ended)
            time.sleep(self._poll_seconds)

    def _ask(self, job_ids: list[str]) -> list[str]:
        try:
            return self._find_ended(job_ids)
        except Exception as error:  # without this thread, nobody is told of any end
            # Those who wait read the job themselves when their time is up, and answer for it.
            log.warning("waiter_query_failed", error=type(error).__name__)
            return []


def make_waiter(engine: Engine) -> Waiter:
    """A waiter that asks the database; ``engine`` must autocommit."""

    def ask(job_ids: list[str]) -> list[str]:
        with engine.connect() as connection:
            return find_ended(connection, job_ids)

    return Waiter(ask)
