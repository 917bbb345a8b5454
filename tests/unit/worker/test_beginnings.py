"""Which prompts go together, by what they begin with."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.beginnings import LEAST_TOKENS, Family, agreeing, families
from worker.engines.inflight import prefill_groups

TEMPLATE = list(range(30))
LONG, OTHER = [*TEMPLATE, *range(100, 1_100)], [*TEMPLATE, *range(2_000, 3_000)]
prompts_of = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=12)


def test_rows_with_one_preamble_are_a_family() -> None:
    found = families([[*LONG, 5_000 + row] for row in range(4)])
    assert found == [Family(len(LONG), [0, 1, 2, 3], 4)]


def test_preambles_that_differ_late_go_apart_and_the_rest_share_what_all_have() -> None:
    prompts = [[*LONG, 1], [*OTHER, 2], [*TEMPLATE, 7_000], [*LONG, 3], [*OTHER, 4], [*TEMPLATE, 8]]
    found = sorted((family.shared, family.members) for family in families(prompts))
    assert found == [(len(TEMPLATE), [2, 5]), (len(LONG), [0, 3]), (len(OTHER), [1, 4])]


def test_a_little_more_in_common_does_not_part_a_microbatch() -> None:
    prompts = [[*LONG, 9, 9, 9, 1], [*LONG, 9, 9, 9, 2], [*LONG, 8, 1], [*LONG, 7, 1]]
    assert families(prompts) == [Family(len(LONG), [0, 1, 2, 3], 4)]


def test_one_row_shares_with_those_that_came_before() -> None:
    assert families([[*LONG, 1]], [[*LONG, 2]]) == [Family(len(LONG), [0], 2)]
    assert families([[*LONG, 1]]) == [Family(0, [0], 1)]


def test_a_token_of_every_prompt_stays_outside() -> None:
    assert families([LONG, LONG, LONG]) == [Family(len(LONG) - 1, [0, 1, 2], 3)]
    assert families([[1], [1], [1]]) == [Family(0, [0, 1, 2], 3)]


@given(prompts_of, prompts_of)
def test_every_prompt_is_in_one_family_that_begins_alike(
    prompts: list[list[int]], seen: list[list[int]]
) -> None:
    found = families(prompts, seen)
    assert sorted(index for family in found for index in family.members) == list(
        range(len(prompts))
    )
    for family in found:
        assert family.shared == 0 or family.shared >= LEAST_TOKENS
        members = [prompts[index] for index in family.members]
        assert all(family.shared < len(prompt) for prompt in members)
        for one, other in combinations(members, 2):
            assert one[: family.shared] == other[: family.shared]


@given(st.lists(st.integers(0, 1), max_size=70), st.lists(st.integers(0, 1), max_size=70))
def test_agreeing_counts_what_both_begin_with(one: list[int], other: list[int]) -> None:
    length = agreeing(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or length == len(one)


@pytest.mark.parametrize(("shared", "groups"), [(0, 1), (1_000, 2), (10_000, 8)])
def test_copies_of_a_long_beginning_are_bounded_too(shared: int, groups: int) -> None:
    assert len(prefill_groups([50] * 8, 600, shared=shared)) == groups
