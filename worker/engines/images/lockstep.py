"""A function that runs in a thread of its own, yet only while somebody waits for it.

A diffusion pipeline is one call with a loop inside, and an engine must do one step at a time. So
the call runs in a helper thread, which is held at the end of each step until the next one is
asked for: never do both sides run at once, and nothing needs a lock.

Everything else that an engine computes goes through such a thread too (``call``). OpenMP keeps a
pool of threads for each thread that computes, and GNU's lets them sleep between two operations, not
spin, once all pools together are larger than the machine: a small model then takes twice as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Result = TypeVar("Result")

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
        self._orders: SimpleQueue[Callable[[Pause], Any] | bool] = SimpleQueue()
        """Work to begin; then whether to go on (True) or to end (False)."""
        self._news: SimpleQueue[Finished[Any] | _Raised | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._next: Callable[[Pause], T] | bool = True
        self._engaged = False

    def begin(self, work: Callable[[Pause], T]) -> None:
        """Takes the next piece of work; it runs with the first ``advance``."""
        self._engage()
        self._next = work

    def call(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns or raises; it is done in the thread, in one go."""
        self._engage()
        news = self._answer(lambda pause: work())
        if isinstance(news, Finished):
            result: Result = news.value
            return result
        raise news.error if news is not None else RuntimeError("it was given no way to pause")

    def advance(self) -> Finished[T] | None:
        """Lets the work run to its next pause (None) or its end; raises what it raised."""
        self.let_go()
        return self.wait()

    def let_go(self) -> None:
        """The first half of ``advance``: the work runs while the caller does something else."""
        order, self._next = self._next, True
        self._orders.put(order)

    def wait(self) -> Finished[T] | None:
        """The second half of ``advance``."""
        news = self._hear()
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

    def _engage(self) -> None:
        if self._engaged:
            raise RuntimeError("the last piece of work has not ended")
        self._engaged = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _answer(self, order: Callable[[Pause], Any] | bool) -> Finished[Any] | _Raised | None:
        self._orders.put(order)
        return self._hear()

    def _hear(self) -> Finished[Any] | _Raised | None:
        news = self._news.get()
        self._engaged = news is None
        return news

    def _run(self) -> None:
        while True:
            work = self._orders.get()
            if not isinstance(work, bool):
                self._news.put(self._outcome(work))
            del work

    def _outcome(self, work: Callable[[Pause], Any]) -> Finished[Any] | _Raised:
        try:
            return Finished(work(self._pause))
        except BaseException as error:  # carried over to the thread that waits
            return _Raised(error)

    def _pause(self) -> None:
        self._news.put(None)
        if self._orders.get() is not True:
            raise Abandoned
