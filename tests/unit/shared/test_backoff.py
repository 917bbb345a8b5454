"""Delays grow, stay under their cap, and are spread."""

from __future__ import annotations

import random
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import delay_seconds, delays


@given(
    st.integers(1, 10_000),
    st.floats(0.01, 100),
    st.floats(0.01, 10_000),
    st.integers(0, 2**32),
)
def test_a_delay_is_between_half_and_all_of_its_step(
    tries: int, base: float, cap: float, seed: int
) -> None:
    step = min(cap, base * 2.0 ** min(tries - 1, 32))
    delay = delay_seconds(tries, base=base, cap=cap, rng=random.Random(seed))
    assert 0.5 * step <= delay <= step


def test_steps_double_up_to_the_cap() -> None:
    class Most(random.Random):
        def random(self) -> float:
            return 1.0

    steps = [delay_seconds(tries, base=1.0, cap=20.0, rng=Most()) for tries in range(1, 8)]
    assert steps == [1, 2, 4, 8, 16, 20, 20]


def test_the_same_try_waits_differently_each_time() -> None:
    rng = random.Random(1)
    assert len({delay_seconds(3, rng=rng) for _ in range(20)}) == 20


def test_the_series_never_ends_and_never_passes_its_cap() -> None:
    series = list(islice(delays(base=0.1, cap=5.0), 2_000))
    assert len(series) == 2_000
    assert max(series) <= 5.0
    assert min(series[10:]) >= 2.5
