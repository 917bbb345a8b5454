"""What is nearest, and what is an answer."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.upkeep.productions.answers import Answer
from worker.upkeep.productions.embedding import (
    CHARACTERS_A_ROW,
    MOST_CHARACTERS,
    TEXTS_A_ROW,
    Found,
    Missing,
    _grouped,
    _vectors_of,
    cosines,
    nearest,
)


def answer(*vectors: list[float]) -> Answer:
    packed = [base64.b64encode(np.array(one, "<f4").tobytes()).decode() for one in vectors]
    return Answer(json.dumps({"data": [{"embedding": one} for one in packed]}).encode())


def test_ties_go_to_the_earlier() -> None:
    assert nearest(np.array([0.5, 0.9, 0.5, 0.9, 0.1], np.float32), 3) == [
        Found(1, 0.9),
        Found(3, 0.9),
        Found(0, 0.5),
    ]


@given(
    scores=st.lists(st.sampled_from([-1.0, -0.25, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=60),
    most=st.integers(1, 70),
)
def test_nearest_is_a_stable_sort(scores: list[float], most: int) -> None:
    expected = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:most]
    assert [one.at for one in nearest(np.array(scores, np.float32), most)] == expected


def test_vectors_are_compared_by_their_angle() -> None:
    corpus = _vectors_of(answer([2, 0], [0, 3], [1, 1], [0, 0]), 4, "")
    text = _vectors_of(answer([10, 0]), 1, "")
    assert isinstance(corpus, np.ndarray)
    assert isinstance(text, np.ndarray)

    (found,) = cosines(text, corpus)

    assert found == pytest.approx([1, 0, math.sqrt(0.5), 0], abs=1e-6)


def test_what_is_no_number_is_like_nothing() -> None:
    made = _vectors_of(answer([math.nan, math.inf]), 1, "")
    assert isinstance(made, np.ndarray)
    assert made.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("given", "verdict", "code"),
    [
        (None, "stopped", "batch_cancelled"),
        (Answer(None, "batch_expired", "m"), "stopped", "batch_expired"),
        (Answer(None, "engine_error", "m"), "failed", "engine_error"),
        (answer([1, 2]), "failed", "invalid_answer"),
        (answer([1, 2], [1]), "failed", "invalid_answer"),
        (answer([], []), "failed", "invalid_answer"),
    ],
)
def test_what_is_no_answer(given: Answer | None, verdict: str, code: str) -> None:
    found = _vectors_of(given, 2, "batch_cancelled")
    assert isinstance(found, Missing)
    assert (found.verdict, found.code) == (verdict, code)


@given(lengths=st.lists(st.integers(1, 20_000), max_size=80))
def test_a_row_has_a_bounded_part_of_the_corpus(lengths: list[int]) -> None:
    groups = list(_grouped(["x" * length for length in lengths]))

    assert [text for group in groups for text in group] == [
        "x" * min(length, MOST_CHARACTERS) for length in lengths
    ]
    for group in groups:
        assert 0 < len(group) <= TEXTS_A_ROW
        assert sum(map(len, group)) <= CHARACTERS_A_ROW
