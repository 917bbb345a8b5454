"""Single generations that end about now, committed in one statement."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from queue import Empty, SimpleQueue

import structlog
from sqlalchemy import Engine

from shared.lifecycle import working
from shared.lifecycle.working import GenerationEnd, Held
from shared.states import ShardState
from worker.insistence import Insistence, Stale

log = structlog.get_logger()

GROUP_LIMIT = 256
"""Single generations committed in one statement."""
GROUP_BYTES = 16 * 2**20
"""A group that is larger than this goes as it is: Postgres takes no statement of a gigabyte."""


class GenerationGroups:
    """One thread that commits what has gathered, and tells ``on_closed`` of each."""

    def __init__(
        self, autocommit: Engine, insistence: Insistence, on_closed: Callable[[Held], None]
    ) -> None:
        self._autocommit = autocommit
        self._insistence = insistence
        self._on_closed = on_closed
        self._generations: SimpleQueue[tuple[str, GenerationEnd] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._group, name="commit-group", daemon=True)
        self._thread.start()

    def put(self, session_id: str, end: GenerationEnd) -> None:
        """Commits ``end`` soon; once closed, at once and in the caller's thread: a picture may be
        stored while the worker leaves."""
        with self._lock:
            if not self._closed:
                self._generations.put((session_id, end))
                return
        self._commit_generations(session_id, [end])

    def close(self, timeout: float) -> None:
        """Waits for what was put, up to ``timeout`` seconds."""
        with self._lock:
            self._closed = True
            self._generations.put(None)
        self._thread.join(timeout)

    def _group(self) -> None:
        while (first := self._generations.get()) is not None:
            group, closing, size = [first], False, _bytes_of(first[1])
            while len(group) < GROUP_LIMIT and size < GROUP_BYTES and not closing:
                try:
                    item = self._generations.get_nowait()
                except Empty:
                    break
                if item is None:
                    closing = True
                else:
                    group.append(item)
                    size += _bytes_of(item[1])
            for session_id, items in groupby(group, key=lambda item: item[0]):
                self._commit_generations(session_id, [end for _, end in items])
            if closing:
                return

    def _commit_generations(self, session_id: str, ends: Sequence[GenerationEnd]) -> None:
        def commit() -> set[Held]:
            with self._autocommit.connect() as connection:
                return working.finish_generations(connection, session_id, ends)

        held = [end.held for end in ends]
        try:
            zombies = set(held) - self._insistence.insist(commit, session_id)
            if zombies:
                log.warning("zombie_commits_refused", shards=[item.shard_id for item in zombies])
        except Stale:
            log.warning("stale_shards_dropped", shards=[item.shard_id for item in held])
        except Exception as error:
            # Not an outage: one of the results is at fault, or this code is.
            self._commit_one_by_one(session_id, ends, error)
            return
        for item in held:
            self._on_closed(item)

    def _commit_one_by_one(
        self, session_id: str, ends: Sequence[GenerationEnd], error: Exception
    ) -> None:
        """A statement that the database refuses for one result must not hold up the others."""
        if len(ends) > 1:
            for end in ends:
                self._commit_generations(session_id, [end])
            return
        log.error("result_refused", shard=ends[0].held.shard_id, error=type(error).__name__)
        if ends[0].error_code == "result_refused":
            self._on_closed(ends[0].held)
            return
        failed = GenerationEnd(
            ends[0].held,
            ShardState.FAILED,
            ends[0].sha256,
            error_code="result_refused",
            error_message="the database could not store the result",
        )
        self._commit_generations(session_id, [failed])


def _bytes_of(end: GenerationEnd) -> int:
    """About what committing it sends; results are nearly all ASCII."""
    return len(end.result or "")
