"""Committing: in groups that a statement can carry, and by a thread that nothing ends."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from shared.db.session import is_outage
from shared.doorbell import Ringer
from shared.errors import StorageUnavailable
from shared.lifecycle import working
from shared.lifecycle.working import GenerationEnd, Held, ReleaseReason
from shared.states import ShardState
from shared.storage.base import StoredObject
from tests.live_session import LiveSession
from tests.unit.worker.claims import answer, make_claim, make_rows
from tests.unit.worker.media_files import made
from worker.commits import MOST_WAITING_SLICES, Commits
from worker.execution import ShardRun
from worker.generation_groups import GROUP_BYTES
from worker.spool import Spool

PATIENCE_SECONDS = 20.0


class World:
    """Commits whose database is a function; ``groups`` are the statements it was asked for."""

    def __init__(self, store: Any = None, **options: Any) -> None:
        self.groups: list[list[GenerationEnd]] = []
        self.fault: Exception | None = None
        self.gate = threading.Event()
        self.closed: Queue[Held] = Queue()
        self.commits = Commits(
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            store,
            LiveSession(),  # type: ignore[arg-type]
            Ringer(""),
            on_closed=self.closed.put,
            **options,
        )

    @contextmanager
    def begin(self) -> Iterator[None]:
        yield None

    connect = begin

    def finish(
        self, _connection: object, _session: str, ends: Sequence[GenerationEnd]
    ) -> set[Held]:
        self.groups.append(list(ends))
        assert self.gate.wait(PATIENCE_SECONDS)
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        return {end.held for end in ends}

    def run(self, shard_id: int, body: bytes = b"{}") -> ShardRun:
        claim = make_claim(shard_id)
        run = ShardRun(claim, "me", make_rows(1, batch=False))
        run.take(answer(claim, body=body))
        return run

    def until_closed(self, count: int) -> None:
        for _ in range(count):
            self.closed.get(timeout=PATIENCE_SECONDS)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    monkeypatch.setattr(working, "finish_generations", world.finish)
    yield world
    world.gate.set()
    world.commits.close(timeout=PATIENCE_SECONDS)


def test_large_results_do_not_share_one_statement(world: World) -> None:
    large = b'"' + b"x" * (GROUP_BYTES // 2) + b'"'
    for shard_id in range(5):
        world.commits.generation(world.run(shard_id, large))
    world.gate.set()
    world.until_closed(5)
    assert max(len(group) for group in world.groups) <= 2


def test_small_results_share_one_statement(world: World) -> None:
    for shard_id in range(50):  # all but the first wait behind the gate
        world.commits.generation(world.run(shard_id))
    world.gate.set()
    world.until_closed(50)
    assert len(world.groups) <= 3


def test_no_fault_ends_the_thread_that_commits_for_all(world: World) -> None:
    world.fault = MemoryError()
    world.commits.generation(world.run(1))
    world.commits.generation(world.run(2))
    world.gate.set()
    world.until_closed(2)
    committed = {end.held.shard_id: end for end in world.groups[-1] + world.groups[-2]}
    assert committed[2].result == "{}"


def test_a_result_outlives_an_outage_of_the_database(world: World) -> None:
    """It is offered again, as it was, until there is an answer."""
    world.gate.set()
    world.fault = OperationalError("UPDATE", {}, psycopg.OperationalError("no database"))
    world.commits.generation(world.run(1))
    world.until_closed(1)
    first, second = ([(end.state, end.result) for end in group] for group in world.groups)
    assert first == second == [(ShardState.SUCCEEDED, "{}")]


def test_a_shard_is_given_back_whatever_goes_wrong_with_its_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody foresaw it; under a live lease the shard would be held for ever."""

    class BrokenStore:
        def put_bytes(self, *_: object, **__: object) -> None:
            raise ValueError("a bug")

    released: list[tuple[object, ...]] = []
    monkeypatch.setattr(working, "release", lambda *given, **_: released.append(given))
    broken = World(BrokenStore())
    claim = make_claim(7, kind="batch")
    run = ShardRun(claim, "me", make_rows(1))
    run.take(answer(claim))
    broken.commits.slice(run)
    broken.until_closed(1)
    broken.commits.close(timeout=PATIENCE_SECONDS)
    assert released == [(None, "me", claim.held, ReleaseReason.ERROR)]


def test_a_slice_is_given_back_when_the_store_has_failed_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoStore:
        def put_bytes(self, *_: object, **__: object) -> None:
            raise StorageUnavailable("no answer")

    released: list[tuple[object, ...]] = []
    monkeypatch.setattr(working, "release", lambda *given, **_: released.append(given))
    impatient = World(NoStore(), storage_patience=0.0)
    claim = make_claim(7, kind="batch")
    run = ShardRun(claim, "me", make_rows(1))
    run.take(answer(claim))
    impatient.commits.slice(run)
    impatient.until_closed(1)
    impatient.commits.close(timeout=PATIENCE_SECONDS)
    assert released == [(None, "me", claim.held, ReleaseReason.ERROR)]


def test_a_store_that_hangs_stops_the_making_of_results(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_now = threading.Event()

    class HangingStore:
        def put_bytes(self, *_: object, **__: object) -> None:
            assert answer_now.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(working, "finish_slice", lambda *_: True)
    waiting = World(HangingStore())
    for shard_id in range(MOST_WAITING_SLICES + 1):
        assert not waiting.commits.congested()
        claim = make_claim(shard_id, kind="batch")
        run = ShardRun(claim, "me", make_rows(1))
        run.take(answer(claim))
        waiting.commits.slice(run)
    assert waiting.commits.congested()
    answer_now.set()
    waiting.until_closed(MOST_WAITING_SLICES + 1)
    assert not waiting.commits.congested()
    waiting.commits.close(timeout=PATIENCE_SECONDS)


# --- files --------------------------------------------------------------------------------------


@pytest.fixture
def filed(tmp_path: Path) -> Iterator[Callable[..., ShardRun]]:
    """Makes runs whose one row has made a picture."""
    spool = Spool(tmp_path / "scratch")
    folder = spool.engine_folder("m", quarantine=False)
    spool.open_engine_folder(folder)

    def make(shard_id: int = 1, **fields: Any) -> ShardRun:
        claim = make_claim(shard_id, **fields)
        run = ShardRun(claim, "me", make_rows(1, batch=False))
        result = answer(claim, files=[made(folder, f"{claim.job_id}-0")])
        run.take_filed(result, spool, folder)
        return run

    yield make
    spool.close()


class MemoryStore:
    """Says that it has stored what it was given; fails the first ``failures`` times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.keys: list[str] = []

    def put_file(self, key: str, path: Path, *, media_type: str) -> StoredObject:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("away")
        self.keys.append(key)
        data = path.read_bytes()
        return StoredObject(key, hashlib.sha256(data).hexdigest(), len(data))


def test_a_single_picture_is_stored_before_its_group_is_committed(
    world: World, filed: Callable[..., ShardRun]
) -> None:
    store = MemoryStore(failures=1)
    with_files = World(store)
    with_files.gate.set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(working, "finish_generations", with_files.finish)
        with_files.commits.generation(filed())
        with_files.until_closed(1)
    ((end,),) = with_files.groups
    assert [artifact.stored.key for artifact in end.artifacts] == store.keys
    assert len(store.keys) == 1
    assert with_files.closed.empty()
    with_files.commits.close(timeout=PATIENCE_SECONDS)


def test_a_picture_that_is_stored_while_the_worker_leaves_is_committed(
    monkeypatch: pytest.MonkeyPatch, filed: Callable[..., ShardRun]
) -> None:
    class LateStore(MemoryStore):
        def put_file(self, key: str, path: Path, *, media_type: str) -> StoredObject:
            leaving.commits._groups._thread.join(PATIENCE_SECONDS)
            return super().put_file(key, path, media_type=media_type)

    leaving = World(LateStore())
    leaving.gate.set()
    monkeypatch.setattr(working, "finish_generations", leaving.finish)
    run = filed()
    leaving.commits.generation(run)
    leaving.commits.close(timeout=PATIENCE_SECONDS)
    assert [end.held for group in leaving.groups for end in group] == [run.held]
    leaving.until_closed(1)


def test_a_single_picture_is_given_back_when_the_store_has_failed_for_long(
    monkeypatch: pytest.MonkeyPatch, filed: Callable[..., ShardRun]
) -> None:
    released: list[tuple[object, ...]] = []
    monkeypatch.setattr(working, "release", lambda *given, **_: released.append(given))
    impatient = World(MemoryStore(failures=9), storage_patience=0.0)
    run = filed()
    impatient.commits.generation(run)
    impatient.until_closed(1)
    impatient.commits.close(timeout=PATIENCE_SECONDS)
    assert released == [(None, "me", run.held, ReleaseReason.ERROR)]
    assert impatient.groups == []
    assert impatient.closed.empty()


def test_a_step_is_committed_with_its_files(
    monkeypatch: pytest.MonkeyPatch, filed: Callable[..., ShardRun]
) -> None:
    ends: list[GenerationEnd] = []

    def finish_step(_connection: object, _session: str, end: GenerationEnd) -> bool:
        ends.append(end)
        return True

    rung: list[str] = []
    monkeypatch.setattr(working, "finish_step", finish_step)
    monkeypatch.setattr("worker.commits.pools_after", lambda _connection, _shard: ["image"])
    monkeypatch.setattr(Ringer, "ring", lambda _self, pool: rung.append(pool))
    steps = World(MemoryStore())
    steps.commits.step(filed(stage="step", kind="campaign", job_id="campaign_1"))
    steps.until_closed(1)
    steps.commits.close(timeout=PATIENCE_SECONDS)
    assert [len(end.artifacts) for end in ends] == [1]
    assert "image" in rung  # where the steps run that waited for it
    assert not steps.commits.congested()


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (psycopg.errors.ProgramLimitExceeded, False),
        (psycopg.errors.AdminShutdown, True),
        (psycopg.errors.DiskFull, True),
        (psycopg.errors.DeadlockDetected, True),
    ],
)
def test_what_is_too_large_is_no_outage(error: type[psycopg.Error], outage: bool) -> None:
    assert is_outage(OperationalError("SELECT 1", {}, error("no"))) is outage
