"""The scheduler's decisions, as plain arithmetic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.engines.inflight import Headroom, Limits, departures, joining, prefill_groups

LIMITS = Limits(slots=8, cache_tokens=800, prefill_tokens=100, refill_at=3)
lengths = st.lists(st.integers(1, 150), max_size=40)


def test_everybody_joins_when_nobody_is_active() -> None:
    assert joining([10, 20, 30], [], LIMITS) == 3


def test_a_full_microbatch_takes_nobody() -> None:
    assert joining([10], [10] * 8, LIMITS) == 0


def test_nobody_joins_until_enough_slots_are_free() -> None:
    assert joining([10] * 5, [10] * 6, LIMITS) == 0
    assert joining([10] * 5, [10] * 5, LIMITS) == 3


def test_the_last_ones_join_as_soon_as_all_of_them_fit() -> None:
    assert joining([10], [10] * 7, LIMITS) == 1


def test_a_long_row_waits_for_room_and_holds_back_those_behind_it() -> None:
    assert joining([400, 10], [100] * 2, LIMITS) == 0
    assert joining([400, 10], [100], LIMITS) == 1


@given(waiting=lengths, active=st.lists(st.integers(1, 100), max_size=8))
def test_joining_never_exceeds_slots_or_cache(waiting: list[int], active: list[int]) -> None:
    joined = joining(waiting, active, LIMITS)
    everybody = active + waiting[:joined]
    assert len(everybody) <= max(LIMITS.slots, len(active))
    assert joined == 0 or len(everybody) * max(everybody) <= LIMITS.cache_tokens


@given(waiting=st.lists(st.integers(1, 800), min_size=1))
def test_an_empty_microbatch_always_takes_somebody(waiting: list[int]) -> None:
    assert joining(waiting, [], LIMITS) >= 1


@given(lengths)
def test_prefill_groups_hold_each_prompt_once_within_the_bound(prompts: list[int]) -> None:
    groups = prefill_groups(prompts, 100)
    assert sorted(index for group in groups for index in group) == list(range(len(prompts)))
    for group in groups:
        longest = max(prompts[index] for index in group)
        assert len(group) == 1 or len(group) * longest <= 100


def test_prefill_groups_put_like_lengths_together() -> None:
    assert prefill_groups([50, 3, 49, 4], 100) == [[0, 2], [3, 1]]


@given(st.lists(st.booleans()))
def test_departures_leave_the_kept_compact(kept: list[bool]) -> None:
    seats = [index if stays else None for index, stays in enumerate(kept)]
    for source, target in departures(kept):
        assert seats[target] is None
        seats[target], seats[source] = seats[source], None
    remaining = [seat for seat in seats if seat is not None]
    assert seats[: len(remaining)] == remaining
    assert sorted(remaining) == [index for index, stays in enumerate(kept) if stays]
    assert len(departures(kept)) <= min(kept.count(True), kept.count(False))


def test_out_of_memory_halves_and_calm_restores() -> None:
    headroom = Headroom(LIMITS)
    headroom.shrink(8)
    assert headroom.now.slots == 4
    assert headroom.now.prefill_tokens < LIMITS.prefill_tokens
    headroom.shrink(1)
    assert headroom.now.slots == 1
    for _ in range(3 * 256):
        headroom.calm()
    assert headroom.now == LIMITS
