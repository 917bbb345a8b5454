"""A function that runs in a thread of its own, yet only while somebody waits for it.

A diffusion pipeline is one call with a loop inside, and an engine must do one step at a time. So
the call runs in a helper thread, which is held at the end of each step until the next one is
asked for: never do both sides run at once, and nothing needs a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

Pause = Callable[[], None]
"""Called by the work where it may be held; raises Abandoned when it must end."""


class Abandoned(BaseException):
    """The work is no longer wanted. Not an Exception, so that the work doesn't catch it."""


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """What the work returned."""

    value: T


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


class LockStep(Generic[T]):
    """Runs one piece of work after another, a stretch at a time.

    The thread is kept between pieces: the thread pools of numerical libraries belong to the
    thread that calls them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._orders: SimpleQueue[Callable[[Pause], T] | bool] = SimpleQueue()
        """Work to begin; then whether to go on (True) or to end (False)."""
        self._news: SimpleQueue[Finished[T] | _Raised | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._next: Callable[[Pause], T] | bool = True
        self._engaged = False

    def begin(self, work: Callable[[Pause], T]) -> None:
        """Takes the next piece of work; it runs with the first ``advance``."""
        if self._engaged:
            raise RuntimeError("the last piece of work has not ended")
        self._engaged, self._next = True, work
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def advance(self) -> Finished[T] | None:
        """Lets the work run to its next pause (None) or its end; raises what it raised."""
        news = self._answer(self._next)
        self._next = True
        if isinstance(news, _Raised):
            raise news.error
        return news

    def abandon(self) -> None:
        """Ends the work where it is held, and waits until it has unwound."""
        if not self._engaged:
            return
        if self._next is not True:  # begun, but never advanced
            self._engaged, self._next = False, True
            return
        while self._engaged:
            self._answer(False)

    def _answer(self, order: Callable[[Pause], T] | bool) -> Finished[T] | _Raised | None:
        self._orders.put(order)
        news = self._news.get()
        self._engaged = news is None
        return news

    def _run(self) -> None:
        while True:
            work = self._orders.get()
            if not isinstance(work, bool):
                self._news.put(self._outcome(work))
            del work

    def _outcome(self, work: Callable[[Pause], T]) -> Finished[T] | _Raised:
        try:
            return Finished(work(self._pause))
        except BaseException as error:  # carried over to the thread that waits
            return _Raised(error)

    def _pause(self) -> None:
        self._news.put(None)
        if self._orders.get() is not True:
            raise Abandoned
