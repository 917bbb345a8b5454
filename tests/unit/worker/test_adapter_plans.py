"""Which rows are computed together, whatever adapters they have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.engines.adapter_plans import TierPlan, plan_tiers


def test_equal_groups_are_one_tier_without_padding() -> None:
    (tier,) = plan_tiers(["b", "", "a", "b", "a"])
    assert tier == TierPlan(("a", "b"), ((2, 4), (0, 3)))
    assert tier.taken == [2, 4, 0, 3]
    assert tier.places == [0, 1, 2, 3]


def test_smaller_groups_are_padded_with_a_row_of_their_own() -> None:
    (tier,) = plan_tiers(["a", "a", "a", "b", "b"])
    assert tier.taken == [0, 1, 2, 3, 4, 3]
    assert tier.places == [0, 1, 2, 3, 4]


def test_a_large_group_does_not_pad_many_small_ones() -> None:
    tiers = plan_tiers(["a"] * 100 + ["b", "c", "d", "e"])
    assert [tier.keys for tier in tiers] == [("a", "b"), ("c", "d", "e")]


def test_rows_without_adapters_are_in_no_tier() -> None:
    assert plan_tiers(["", ""]) == []
    assert plan_tiers([]) == []


@given(st.lists(st.sampled_from(["", *"abcdefgh"]), max_size=80))
def test_every_adapted_row_is_in_exactly_one_place(keys: list[str]) -> None:
    placed: list[tuple[int, str]] = []
    for tier in plan_tiers(keys):
        owners = [key for key in tier.keys for _ in range(tier.height)]
        assert len(tier.taken) == len(owners)
        assert len(tier.taken) <= 2 * len(tier.places)
        assert all(keys[row] == owner for row, owner in zip(tier.taken, owners, strict=True))
        placed += [(tier.taken[place], owners[place]) for place in tier.places]
    assert sorted(placed) == [(row, key) for row, key in enumerate(keys) if key]
