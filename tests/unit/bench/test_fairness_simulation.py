"""The simulated plant: deterministic, conserving work, and what docs/fairness.md says of it."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from bench.fairness_simulation import POLICIES, see
from bench.simulation.load import Load, batch, call, flood, mixed
from bench.simulation.picture import bars
from bench.simulation.plant import Plant, idle_wait
from bench.simulation.policies import Fair

DOCS = Path(__file__).resolve().parents[3] / "docs"


def small_flood() -> Load:
    return flood(seconds=2.0, calls=(11.3, 14.0, 16.7), rows=25_600, small_at=13.0, until=None)


def test_behind_a_flood_fair_claims_keep_the_bound_and_the_others_do_not() -> None:
    seen = {policy: see(small_flood(), policy, only=("B", "C")) for policy in POLICIES}
    assert seen["fair"].over <= 1
    assert seen["first come"].over > 10
    assert seen["greedy affinity"].over > 10


def test_mixed_load_is_fair_and_loads_few_models() -> None:
    load = mixed()
    seen = {policy: see(load, policy) for policy in POLICIES}
    assert seen["fair"].loads <= 1.3 * seen["greedy affinity"].loads
    assert seen["fair"].worst <= 0.3 * seen["first come"].worst
    page = (DOCS / "fairness.md").read_text()
    [loads] = re.findall(r"models loaded \| (.*?) \|\n", page)
    assert loads.split(" | ") == [f"{seen[policy].loads:,}" for policy in POLICIES]
    [worst] = re.findall(r"the worst tenant \| (.*?) \|\n", page)
    assert worst.split(" | ") == [f"{seen[policy].worst:.3g}" for policy in POLICIES]
    slowdowns = {policy: found.slowdowns for policy, found in seen.items()}
    title = "How many times longer than alone requests take"
    assert (DOCS / "fairness.svg").read_text() == bars(title, slowdowns)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", [3, 4])
def test_a_random_load_ends_whole_and_the_same_every_time(policy: str, seed: int) -> None:
    draw = random.Random(seed)
    requests = tuple(
        batch(
            f"t{n % 3}", draw.random() * 200, draw.randrange(1, 900), "xyz"[n % 2], slice_seconds=9
        )
        if draw.random() < 0.5
        else call(f"t{n % 4}", draw.random() * 200, draw.choice("xyz"), seconds=3)
        for n in range(40)
    )
    load = Load(requests, workers=2, capacity=64, slots=2, load_seconds=5)
    outcome = Plant(load, POLICIES[policy](load)).run()
    assert set(outcome.waits) == set(requests)
    asked = Counter(shard for request in requests for shard in request.shards)
    assert Counter(outcome.taken) == asked
    assert all(
        wait >= idle_wait(request, load, POLICIES[policy](load)) - load.load_seconds - 1e-9
        for request, wait in outcome.waits.items()
    )
    assert Plant(load, POLICIES[policy](load)).run() == outcome


def test_a_model_is_loaded_once_while_nothing_else_is_asked_for() -> None:
    load = Load((batch("a", 0.0, 1_024, "x", slice_seconds=2.0),), load_seconds=10.0)
    outcome = Plant(load, Fair({})).run()
    assert outcome.loads == 1
    assert list(outcome.waits.values()) == [10.0 + 4 * 2.0]
