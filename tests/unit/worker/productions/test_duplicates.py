"""Near-duplicates: none is left, none is invented, and the same are found on every run."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from shared.productions.words import jaccard, shingles
from worker.upkeep.productions.duplicates import (
    BANDS,
    BITMAP_WORDS,
    BLOCK,
    MISSED,
    SHINGLE_WORDS,
    NearDuplicates,
    rows_for,
)

WORDS = [f"word{number}" for number in range(1_500)]


def variant(base: list[str], changes: int, chance: random.Random) -> str:
    words = list(base)
    for _ in range(changes):
        at = chance.randrange(len(words))
        match chance.randrange(3):
            case 0:
                words[at] = chance.choice(WORDS)
            case 1:
                words.insert(at, chance.choice(WORDS))
            case _:
                del words[at]
    return " ".join(words)


def families(threshold: float, texts: int) -> list[str]:
    """Texts that crowd around the threshold: each family is one text with a few words changed, so
    that some pairs are just above it and as many just below."""
    chance = random.Random(20)
    found: list[str] = []
    while len(found) < texts:
        length = chance.choice((3, 12, 40, 120))
        base = [chance.choice(WORDS) for _ in range(length)]
        # Each change makes about six of the shingles of two texts differ.
        most = max(1, round(2 * (1 - threshold) / (1 + threshold) * length / 3))
        found += [variant(base, chance.randint(0, most), chance) for _ in range(60)]
    chance.shuffle(found)
    return found[:texts]


def alike(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    """Every pair of near-duplicates, found by comparing all with all."""
    numbers: dict[str, int] = {}
    sets = [
        [numbers.setdefault(each, len(numbers)) for each in shingles(text, SHINGLE_WORDS)]
        for text in texts
    ]
    rows = [row for row, each in enumerate(sets) for _ in each]
    columns = [number for each in sets for number in each]
    matrix = csr_matrix(([1] * len(rows), (rows, columns)), shape=(len(texts), len(numbers)))
    common = (matrix @ matrix.T).tocoo()
    return {
        (int(one), int(other))
        for one, other, both in zip(common.row, common.col, common.data, strict=True)
        if one < other and both / (len(sets[one]) + len(sets[other]) - both) >= threshold
    }


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 0.95, 1.0])
def test_of_3000_texts_no_near_duplicates_are_left(threshold: float, tmp_path: Path) -> None:
    texts = families(threshold, 3_000)
    with NearDuplicates(threshold, tmp_path) as known:
        found = known.add(texts)
        assert len(known) == found.count(None)
    kept = [at for at, original in enumerate(found) if original is None]
    assert not alike([texts[at] for at in kept], threshold)
    removed = [(at, original) for at, original in enumerate(found) if original is not None]
    assert len(removed) > 300
    for at, original in removed:
        assert kept[original] < at
        assert jaccard(texts[at], texts[kept[original]], SHINGLE_WORDS) >= threshold


def test_how_texts_are_cut_into_calls_changes_nothing(tmp_path: Path) -> None:
    texts = families(0.85, 1_200)
    with NearDuplicates(0.85, tmp_path) as known:
        at_once = known.add(texts)
    with NearDuplicates(0.85, tmp_path) as known:
        chance, one_by_one, at = random.Random(3), list[int | None](), 0
        while at < len(texts):
            step = chance.choice((1, 7, BLOCK + 1))
            one_by_one += known.add(texts[at : at + step])
            at += step
    assert one_by_one == at_once


def test_it_goes_on_after_it_was_saved(tmp_path: Path) -> None:
    texts = families(0.7, 1_500)
    with NearDuplicates(0.7, tmp_path) as known:
        whole = known.add(texts)
    saved = io.BytesIO()
    with NearDuplicates(0.7, tmp_path) as known:
        first = known.add(texts[:900])
        known.save(saved)
        rest = known.add(texts[900:])  # what was saved does not end it
    assert first + rest == whole
    saved.seek(0)
    with NearDuplicates.restore(saved, tmp_path) as restored:
        assert len(restored) == first.count(None)
        assert restored.add(texts[900:]) == rest
    for damaged in (b"", saved.getvalue()[:-8], b"{}\n", b"x" * 100):
        with pytest.raises(ValueError, match=r"file|JSON|Expecting"):
            NearDuplicates.restore(io.BytesIO(damaged), tmp_path)


def test_no_file_is_left(tmp_path: Path) -> None:
    with NearDuplicates(0.85, tmp_path) as known:
        known.add(["a text"])
    assert not list(tmp_path.iterdir())


def test_what_counts_as_the_same(tmp_path: Path) -> None:
    with NearDuplicates(0.85, tmp_path) as known:
        mugs = ["A fine MUG, for tea!", "a fine mug for  tea", "Ａ fine mug for tea"]
        assert known.add(mugs) == [None, 0, 0]
        assert known.add(["", " ", "!", "mug", "Mug.", "the mug"]) == [None, 1, 1, None, 2, None]
        assert known.add(["我喜欢喝茶和咖啡", "我喜欢喝茶和咖啡。", "他们去了北京"]) == [
            None,
            4,
            None,
        ]


def test_the_bands_miss_next_to_nothing_and_take_200_bytes() -> None:
    for hundredths in range(50, 101):
        threshold = hundredths / 100
        assert (1 - threshold ** rows_for(threshold)) ** BANDS <= MISSED
    assert rows_for(0.85) == 4  # fewer would find many candidates that are not alike
    index, bitmap, end = 8 * BANDS, 8 * BITMAP_WORDS, 8
    assert index + bitmap + end == 200


@settings(max_examples=40)
@given(st.lists(st.text("ab ", max_size=8), max_size=30), st.floats(0.5, 1))
def test_any_texts(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], least: float
) -> None:
    with NearDuplicates(least, tmp_path_factory.getbasetemp()) as known:
        found = known.add(texts)
    kept = [text for text, original in zip(texts, found, strict=True) if original is None]
    assert not alike(kept, least)
    for text, original in zip(texts, found, strict=True):
        assert original is None or jaccard(text, kept[original], SHINGLE_WORDS) >= least
