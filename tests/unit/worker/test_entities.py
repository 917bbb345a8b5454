"""Words, tags and entities, on cases made by hand and against a search through everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from worker.engines.entities import (
    Entity,
    TagReader,
    as_bio,
    entities_of,
    first_pieces,
    joined,
    words_of,
)

LABELS = ["O", "B-place", "I-place", "B-person", "I-person"]
TAGS = st.lists(st.sampled_from(LABELS), max_size=12)


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in words_of(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anna Weber lives in Lyon.", ["Anna", "Weber", "lives", "in", "Lyon", "."]),
        ("O'Neill (Coca-Cola), the U.S. and AT&T", [
            "O'Neill", "(", "Coca-Cola", ")", ",", "the", "U.S", ".", "and", "AT&T",
        ]),
        ("“Schön!” — ok", ["“", "Schön", "!", "”", "—", "ok"]),
        ("東京タワー is 333 m", [*"東京タワー", "is", "333", "m"]),
        ("a🎉b", ["a", "🎉", "b"]),
        ("  \n ", []),
    ],
)  # fmt: skip
def test_words_of(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(max_size=60))
def test_words_cover_all_but_spaces(text: str) -> None:
    spans = words_of(text)
    assert all(start < end for start, end in spans)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    covered = "".join(text[start:end] for start, end in spans)
    assert covered == "".join(text.split())


def test_words_are_joined_as_one_would_write_them() -> None:
    tokens = ["(", "Anna", ")", "'s", "flat", ",", "in", "Lyon", ":", "50", "%", "off", "!"]
    text, spans = joined(tokens)
    assert text == "(Anna)'s flat, in Lyon: 50% off!"
    assert [text[start:end] for start, end in spans] == tokens


@given(st.lists(st.text(min_size=1, max_size=6), max_size=8))
def test_joined_spans_are_the_words(tokens: list[str]) -> None:
    text, spans = joined(tokens)
    assert [text[start:end] for start, end in spans] == tokens


def test_first_pieces() -> None:
    text_words = [(0, 4), (5, 10), (10, 11), (12, 15)]
    special, pieces = (0, 0), [(0, 2), (2, 4), (4, 10), (10, 12), (12, 15)]
    assert first_pieces(text_words, [special, *pieces, special]) == [1, 3, 4, 5]


def test_a_word_that_was_cut_off_has_no_piece() -> None:
    assert first_pieces([(0, 1), (2, 3)], [(0, 0), (0, 1), (0, 0)]) == [1, None]


def test_a_word_that_the_tokenizer_drops_has_no_piece() -> None:
    assert first_pieces([(0, 1), (2, 3), (4, 5)], [(0, 1), (4, 5)]) == [0, None, 1]


def test_a_piece_may_begin_several_words() -> None:
    assert first_pieces([(0, 1), (1, 2)], [(0, 2)]) == [0, 0]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-place", [Entity(0, 1, "place")]),
        ("B-place I-place O", [Entity(0, 2, "place")]),
        ("B-place B-place", [Entity(0, 1, "place"), Entity(1, 2, "place")]),
        ("B-place I-person", [Entity(0, 1, "place")]),
        ("I-place I-place", []),
        ("O I-place B-place I-place", [Entity(2, 4, "place")]),
        ("B-place I-person I-place", [Entity(0, 1, "place")]),
        ("B-place O I-place", [Entity(0, 1, "place")]),
        ("brand brand O brand", [Entity(0, 2, "brand"), Entity(3, 4, "brand")]),
        ("B- I-", [Entity(0, 1, "B-"), Entity(1, 2, "I-")]),
    ],
)
def test_entities_of(tags: str, expected: list[Entity]) -> None:
    assert entities_of(tags.split()) == expected


def test_an_orphan_becomes_a_beginning() -> None:
    tags = ["I-x", "I-x", "O", "I-x", "I-y", "B-y", "I-y"]
    assert as_bio(tags) == ["B-x", "I-x", "O", "B-x", "B-y", "B-y", "I-y"]


@given(TAGS)
def test_mended_tags_have_no_orphans(tags: list[str]) -> None:
    mended = as_bio(tags)
    assert as_bio(mended) == mended
    covered = sum(entity.end - entity.start for entity in entities_of(mended))
    assert covered == sum(tag != "O" for tag in tags)


def is_legal(tags: tuple[str, ...]) -> bool:
    return list(tags) == as_bio(tags)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, (4, 5), elements=st.floats(-4, 4, width=16)))
def test_the_likeliest_legal_tags_are_read(chances: np.ndarray) -> None:
    found = TagReader(LABELS).tags(chances)

    def likelihood(tags: tuple[str, ...]) -> float:
        rows = zip(chances.tolist(), tags, strict=True)
        return sum(row[LABELS.index(tag)] for row, tag in rows)

    legal = [tags for tags in itertools.product(LABELS, repeat=4) if is_legal(tags)]
    assert is_legal(tuple(found))
    assert likelihood(tuple(found)) == pytest.approx(max(map(likelihood, legal)), abs=1e-4)


def test_kinds_that_never_begin_are_read_as_they_come() -> None:
    reader = TagReader(["O", "I-place"])
    assert reader.tags(np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)) == ["I-place", "I-place"]


def test_no_words_have_no_tags() -> None:
    assert TagReader(LABELS).tags(np.zeros((0, 5), np.float32)) == []
