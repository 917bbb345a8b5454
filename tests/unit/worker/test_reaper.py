"""When the reaper may act: grace after an outage, and the breaker for mass expiry."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from shared.lifecycle import working
from worker.upkeep.reaper import Reaper

HEARTBEAT, TTL = 5.0, 30.0
GRACE = TTL + 2 * HEARTBEAT


class World:
    """A database of sessions that are expired or alive; a clock; maybe an outage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 500.0
        self.down = False
        self.expired: list[str] = []
        self.alive = 10
        self.dead: list[str] = []
        monkeypatch.setattr(working, "expired_sessions", lambda _: (self.expired, self.alive))
        monkeypatch.setattr(working, "declare_dead", self._declare_dead)
        monkeypatch.setattr(working, "recover_lost", lambda _: ["text"])
        database: Any = self
        self.reaper = Reaper(
            database, heartbeat_seconds=HEARTBEAT, ttl_seconds=TTL, clock=lambda: self.now
        )

    @contextmanager
    def begin(self) -> Any:
        if self.down:
            raise ConnectionError
        yield None

    def _declare_dead(self, _: object, ids: list[str]) -> int:
        self.dead += ids
        self.alive -= len(ids)
        self.expired = []
        return len(ids)

    def passes(self, seconds: float) -> None:
        """A pass a second, as upkeep makes them."""
        for _ in range(int(seconds)):
            self.now += 1
            self.reaper.run()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_nothing_is_declared_dead_in_the_first_grace(world: World) -> None:
    world.expired = ["w1"]
    world.passes(GRACE)
    assert world.dead == []
    world.passes(2)
    assert world.dead == ["w1"]


def test_recovery_needs_no_grace(world: World) -> None:
    assert world.reaper.run() == ["text"]


def test_an_outage_starts_the_grace_anew(world: World) -> None:
    world.passes(2 * GRACE)
    world.down = True
    with pytest.raises(ConnectionError):
        world.passes(1)
    world.down, world.expired = False, ["w1"]
    world.now += 1_000  # how long it lasted does not matter
    world.passes(GRACE)
    assert world.dead == []
    world.passes(2)
    assert world.dead == ["w1"]


def test_a_few_may_die_together(world: World) -> None:
    world.passes(2 * GRACE)
    world.alive, world.expired = 3, ["w1", "w2", "w3"]
    world.passes(1)
    assert world.dead == ["w1", "w2", "w3"]


def test_a_small_share_of_many_may_die_together(world: World) -> None:
    world.passes(2 * GRACE)
    world.alive, world.expired = 100, [f"w{n}" for n in range(30)]
    world.passes(1)
    assert len(world.dead) == 30


def test_mass_expiry_is_held_for_one_more_lease(world: World) -> None:
    world.passes(2 * GRACE)
    world.alive, world.expired = 12, [f"w{n}" for n in range(4)]
    world.passes(TTL)
    assert world.dead == []
    world.passes(1)
    assert len(world.dead) == 4


def test_mass_expiry_that_heals_kills_nobody(world: World) -> None:
    world.passes(2 * GRACE)
    world.expired = [f"w{n}" for n in range(5)]
    world.passes(TTL - 5)
    world.expired = ["w1"]  # all others renewed their leases
    world.passes(1)
    assert world.dead == ["w1"]


@pytest.mark.parametrize("between", ["healed", "outage"])
def test_a_hold_of_long_ago_does_not_count_for_the_next_mass_expiry(
    world: World, between: str
) -> None:
    world.passes(2 * GRACE)
    world.expired = [f"w{n}" for n in range(5)]
    world.passes(2)
    world.expired, world.down = [], between == "outage"
    if world.down:
        with pytest.raises(ConnectionError):
            world.passes(1)
    world.down = False
    world.passes(10 * GRACE)
    world.expired = [f"w{n}" for n in range(5)]
    world.passes(TTL)
    assert world.dead == []
    world.passes(1)
    assert len(world.dead) == 5
