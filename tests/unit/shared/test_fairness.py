"""Whose turn it is: shares by weight, no credit for idleness, affinity within its bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulation.load import Shard
from bench.simulation.policies import Fair, Running
from shared.fairness import PATIENCE, longest_wait, rival_work

NOBODY = Running((), ())


def shard(tenant: str, work: float = 1.0, model: str = "m") -> Shard:
    return Shard(tenant, model, 1, 1.0, work)


class Pool:
    """Lines of tenants that are served one shard at a time."""

    def __init__(self, weights: dict[str, float] | None = None) -> None:
        self._fair = Fair(weights or {})
        self._shards: list[Shard] = []

    def add(self, *shards: Shard) -> None:
        for item in shards:
            self._fair.add(len(self._shards), item)
            self._shards.append(item)

    def take(self, loaded: Sequence[str] = (), running: Running = NOBODY) -> Shard | None:
        numbers = self._fair.take(rows=1, loaded=loaded, running=running)
        return self._shards[numbers[0]] if numbers else None

    def tenants(self, count: int) -> Counter[str]:
        taken = [self.take() for _ in range(count)]
        return Counter(item.tenant for item in taken if item is not None)


# --- shares ------------------------------------------------------------------------------------


@given(
    weights=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    work=st.sampled_from([0.5, 1.0, 256.0]),
)
def test_shares_are_as_the_weights_to_within_a_shard(weights: tuple[int, int], work: float) -> None:
    pool = Pool({"a": weights[0], "b": weights[1]})
    pool.add(*(shard(tenant, work) for tenant in "ab" for _ in range(80)))
    given = {"a": 0, "b": 0}
    for _ in range(80):
        taken = pool.take()
        assert taken is not None
        given[taken.tenant] += 1
        a, b = given["a"] / weights[0], given["b"] / weights[1]
        assert abs(a - b) <= max(1 / weights[0], 1 / weights[1]) + 1e-9


def test_a_weight_of_three_gets_three_times_as_much() -> None:
    pool = Pool({"b": 3.0})
    pool.add(*(shard(tenant) for tenant in "ab" for _ in range(400)))
    assert pool.tenants(400) == {"a": 100, "b": 300}


def test_long_shards_count_for_more() -> None:
    pool = Pool()
    pool.add(*(shard("long", 60.0) for _ in range(20)), *(shard("short") for _ in range(600)))
    assert pool.tenants(305)["long"] == pytest.approx(5, abs=1)


@given(alone=st.integers(0, 200), after=st.integers(1, 40))
def test_waiting_for_nothing_earns_no_credit(alone: int, after: int) -> None:
    pool = Pool()
    pool.add(*(shard("busy") for _ in range(400)))
    pool.tenants(alone)
    pool.add(*(shard("back") for _ in range(100)))
    assert pool.tenants(2 * after)["back"] in {after, after + 1}


def test_a_tenant_that_comes_back_again_and_again_gets_no_more_than_its_share() -> None:
    pool = Pool()
    pool.add(*(shard("steady", 4.0) for _ in range(400)))
    given: Counter[str] = Counter()
    for _ in range(100):
        pool.add(shard("now and then", 4.0))
        given += pool.tenants(2)
    assert given["now and then"] <= given["steady"] + 1


# --- the bound ---------------------------------------------------------------------------------

RIVALS = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from([1.0, 30.0, 256.0])),
    min_size=1,
    max_size=4,
)


@dataclass(frozen=True)
class Story:
    """Rivals that always have work, of any models, on workers that keep what they loaded last."""

    rivals: list[tuple[float, float]]
    """(weight, work of each shard)."""
    mine: list[float]
    weight: float
    before: int
    """Shards that are taken before I come."""
    models: list[str]
    """Of the rivals; the last one is mine."""
    workers: int
    together: bool
    """The first rival comes when I do."""


STORIES = st.builds(
    Story,
    rivals=RIVALS,
    mine=st.lists(st.sampled_from([1.0, 10.0, 256.0]), min_size=1, max_size=4),
    weight=st.sampled_from([0.5, 1.0, 2.0]),
    before=st.integers(0, 60),
    models=st.lists(st.sampled_from("xyz"), min_size=5, max_size=5),
    workers=st.integers(1, 3),
    together=st.booleans(),
)


class Floods:
    """A pool in which every rival has a shard to offer whenever somebody looks."""

    def __init__(self, story: Story) -> None:
        self.names = [f"rival-{number}" for number in range(len(story.rivals))]
        weights = {name: story.rivals[n][0] for n, name in enumerate(self.names)}
        self.pool = Pool({"me": story.weight} | weights)
        self._story = story
        self._has = dict.fromkeys(range(story.workers), "")
        self._runs: dict[int, Shard] = {}
        self._step = 0

    def begin(self, name: str) -> None:
        number = self.names.index(name)
        work, model = self._story.rivals[number][1], self._story.models[number]
        self.pool.add(*(shard(name, work, model) for _ in range(40)))

    def turn(self) -> Shard:
        """The next worker ends what it runs and takes something else."""
        worker = self._step % self._story.workers
        self._step += 1
        self._runs.pop(worker, None)
        runs = self._runs.values()
        running = Running({item.tenant for item in runs}, {item.model for item in runs})
        taken = self.pool.take([self._has[worker]], running)
        assert taken is not None
        self._runs[worker], self._has[worker] = taken, taken.model
        if taken.tenant != "me":
            self.pool.add(taken)
        return taken


@settings(max_examples=150, deadline=None)
@given(story=STORIES)
def test_nobody_waits_longer_than_the_bound(story: Story) -> None:
    floods = Floods(story)
    late = floods.names[: 1 if story.together else 0]
    early = [name for name in floods.names if name not in late]
    for name in early:
        floods.begin(name)
    for _ in range(story.before if early else 0):
        floods.turn()
    floods.pool.add(*(shard("me", work, story.models[-1]) for work in story.mine))
    for name in late:
        floods.begin(name)
    left, passed = len(story.mine), dict.fromkeys(floods.names, 0.0)
    while left:
        taken = floods.turn()
        if taken.tenant == "me":
            left -= 1
        else:
            passed[taken.tenant] += taken.work
    for (rival, largest), work in zip(story.rivals, passed.values(), strict=True):
        most = rival_work(
            sum(story.mine), story.weight, [rival], largest_shard=largest, passed_over=True
        )
        assert work <= most + 1e-6


@settings(max_examples=60, deadline=None)
@given(before=st.integers(0, 30), model=st.sampled_from("xy"), rows=st.integers(1, 10))
def test_ten_rows_behind_a_million_are_next(before: int, model: str, rows: int) -> None:
    pool = Pool()
    pool.add(*(shard("big", 256.0, "x") for _ in range(100)))
    for _ in range(before):
        pool.take(["x"], Running({"big"}, {"x"}))
    pool.add(*(shard("small", 1.0, model) for _ in range(rows)))
    loaded, running = ["x"], Running({"big"}, {"x"})
    taken = []
    for _ in range(rows + 1):
        item = pool.take(loaded, running)
        assert item is not None
        taken.append(item.tenant)
        loaded = [item.model]
        running = Running({item.tenant}, {item.model})
    # If nothing was served yet both are as fair; there is one shard of the big one before, at most.
    assert taken.count("small") >= rows if before == 0 else taken[:rows] == ["small"] * rows


def test_the_bound_in_seconds() -> None:
    assert rival_work(10, 1.0, [1.0], largest_shard=256) == 266
    assert rival_work(10, 2.0, [1.0, 3.0], largest_shard=4) == 5 + 4 + 15 + 4
    assert rival_work(10, 1.0, [2.0], largest_shard=1, passed_over=True) == 2 * (10 + PATIENCE) + 1
    seconds = longest_wait(
        5.0, work=10, weight=1.0, rivals=[1.0], largest_shard=20, seconds_of_work=0.5, workers=2
    )
    assert seconds == 5 + (30 / 2 + 20) * 0.5
