"""Long-polls and streams: one thread asks about all awaited jobs in one query, whoever waits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Condition, Event, Thread
from typing import NamedTuple, Protocol

import structlog
from sqlalchemy import Engine

from shared.db.polling import News, Seen, news_of
from shared.db.security import acting_for
from shared.errors import TooManyRequests

log = structlog.get_logger()

POLL_SECONDS = 0.1
PAUSES = 20
"""How many times as long as its question took the thread pauses, at least: it leaves a slow
database, and a busy process, to those who do something."""
END = Seen()
"""Of a job of which nothing but the end matters."""


class Sleep(Protocol):
    """Waits for news of jobs; whether there is any. No news means that the time is up, or that the
    process is to stop (``Waiter.stopping``)."""

    def __call__(
        self, awaited: str | Mapping[str, Seen], seconds: float, /, *, seen: Seen = END
    ) -> bool:
        """``awaited`` is a job, known as far as ``seen``, or several and how far each is known."""
        ...


class _Sleeper(NamedTuple):
    woken: Event
    seen: Mapping[str, Seen]


class Waiter:
    """Lets requests sleep until there is news of a job. The thread starts with the first of them,
    so in the process that serves it, and asks nothing while nobody waits."""

    def __init__(
        self,
        find_news: Callable[[dict[str, Seen]], Mapping[str, News]],
        *,
        max_waiting: int,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """``find_news`` gives the jobs that have ended or gone beyond what was seen of them."""
        self._find_news = find_news
        self._poll_seconds = poll_seconds
        self._max_waiting = max_waiting
        # A tenant whose jobs take for ever leaves some places to the others.
        self._max_of_tenant = max_waiting - max_waiting // 4
        self._of_tenant: Counter[str] = Counter()
        self._awaited: dict[str, list[_Sleeper]] = {}
        self._waiting = 0
        self._changed = Condition()
        self._thread: Thread | None = None
        self._closed = False
        self._serving: Callable[[], bool] = lambda: True

    def wait(
        self,
        tenant_id: str,
        awaited: str | Mapping[str, Seen],
        seconds: float,
        *,
        seen: Seen = END,
    ) -> bool:
        """As ``Sleep``, but returns at once when too many wait."""
        with suppress(TooManyRequests), self.place(tenant_id) as sleep:
            return sleep(awaited, seconds, seen=seen)
        return False

    @contextmanager
    def place(self, tenant_id: str) -> Iterator[Sleep]:
        """A place among those who may wait, for the length of the block: its holder can submit a
        job and be sure to be able to wait for it. No tenant can have all of them. Raises
        TooManyRequests.
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

    def _sleep(
        self, awaited: str | Mapping[str, Seen], seconds: float, /, *, seen: Seen = END
    ) -> bool:
        known = {awaited: seen} if isinstance(awaited, str) else awaited
        sleeper = _Sleeper(Event(), known)
        with self._changed:
            if self._closed or not known:
                return False
            for job_id in known:
                self._awaited.setdefault(job_id, []).append(sleeper)
            if self._thread is None:
                self._thread = Thread(target=self._watch, name="job-waiter", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            return sleeper.woken.wait(seconds) and not self.stopping
        finally:
            self._leave(sleeper)

    @property
    def waiting(self) -> int:
        """How many have a place at this moment."""
        with self._changed:
            return self._waiting

    @property
    def stopping(self) -> bool:
        """Whether everybody was let go: the process is to stop."""
        return self._closed or not self._serving()

    def serve_while(self, serving: Callable[[], bool]) -> None:
        """Lets everybody go as soon as ``serving`` is false: the process is to stop."""
        self._serving = serving

    def close(self) -> None:
        """Lets everybody go and ends the thread."""
        with self._changed:
            self._closed = True
            self._release_all()
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _leave(self, sleeper: _Sleeper) -> None:
        with self._changed:
            for job_id in sleeper.seen:
                sleepers = self._awaited.get(job_id, [])
                self._awaited[job_id] = [other for other in sleepers if other is not sleeper]
                if not self._awaited[job_id]:
                    del self._awaited[job_id]

    def _release_all(self) -> None:
        for sleepers in self._awaited.values():
            for sleeper in sleepers:
                sleeper.woken.set()

    def _release(self, news: Mapping[str, News]) -> None:
        for job_id, found in news.items():
            for sleeper in self._awaited.get(job_id, []):
                if found.beyond(sleeper.seen[job_id]):
                    sleeper.woken.set()

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._awaited and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                asked = {job_id: _least(job_id, them) for job_id, them in self._awaited.items()}
                tenants = list(self._of_tenant)
            asked_at = time.monotonic()
            with acting_for(*tenants):
                news = self._ask(asked) if self._serving() else {}
            took = time.monotonic() - asked_at
            with self._changed:
                self._release(news)
                if not self._serving():
                    self._release_all()
            time.sleep(max(self._poll_seconds, PAUSES * took))

    def _ask(self, asked: dict[str, Seen]) -> Mapping[str, News]:
        try:
            return self._find_news(asked)
        except Exception as error:  # without this thread, nobody is told of any end
            # Those who wait read the job themselves when their time is up, and answer for it.
            log.warning("waiter_query_failed", error=type(error).__name__)
            return {}


def _least(job_id: str, sleepers: list[_Sleeper]) -> Seen:
    """What all of them have seen of the job, of those who want to know."""
    if len(sleepers) == 1:
        return sleepers[0].seen[job_id]
    seen = [sleeper.seen[job_id] for sleeper in sleepers]
    versions = [one.version for one in seen if one.version is not None]
    events = [one.event for one in seen if one.event is not None]
    return Seen(min(versions, default=None), min(events, default=None))


def make_waiter(engine: Engine, *, max_waiting: int) -> Waiter:
    """A waiter that asks the database; ``engine`` must autocommit."""

    def ask(asked: dict[str, Seen]) -> Mapping[str, News]:
        with engine.connect() as connection:
            return news_of(connection, asked)

    return Waiter(ask, max_waiting=max_waiting)
