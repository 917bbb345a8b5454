"""Threads that read sources: so many at a time, one alone, and none that others wait for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from worker.upkeep.feeds_readers import AT_ONCE, Readers

PATIENCE_SECONDS = 120.0


@contextmanager
def reading(readers: Readers, number: int) -> Iterator[threading.Event]:
    """So many threads that last until the event, which is set in the end."""
    go = threading.Event()
    for _ in range(number):
        readers.begin(lambda: bool(go.wait(PATIENCE_SECONDS)))
    try:
        yield go
    finally:
        go.set()
        readers.wait()


def test_so_many_are_read_at_a_time() -> None:
    readers = Readers(patience_seconds=PATIENCE_SECONDS)
    with reading(readers, AT_ONCE - 1):
        assert readers.wait_for_room(within_seconds=0)
        assert not readers.wait_for_room(within_seconds=0, alone=True)
        with reading(readers, 1) as go:
            assert not readers.wait_for_room(within_seconds=0.01)
            go.set()
            assert readers.wait_for_room(within_seconds=PATIENCE_SECONDS)
    assert readers.wait_for_room(within_seconds=0, alone=True)


def test_one_that_does_not_come_back_is_waited_for_no_longer() -> None:
    readers = Readers(patience_seconds=0.05)
    with reading(readers, AT_ONCE + 1):
        assert readers.wait_for_room(within_seconds=PATIENCE_SECONDS, alone=True)


def test_nothing_begins_once_they_are_closed() -> None:
    readers = Readers(patience_seconds=PATIENCE_SECONDS)
    readers.close(within_seconds=PATIENCE_SECONDS)
    assert not readers.wait_for_room(within_seconds=PATIENCE_SECONDS)
