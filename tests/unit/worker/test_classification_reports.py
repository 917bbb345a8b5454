"""Scores of classifiers against scikit-learn's, and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from worker.engines.entities import Entity, entities_of
from worker.recipes import classification_reports as reports
from worker.recipes.entity_scores import EntityCounts, kinds_of, remembering, tag_labels

LABELS = ["a", "b", "c", "d"]


@pytest.fixture
def answers() -> tuple[list[int], list[int]]:
    """What is true and what was said; ``d`` is never true and never said."""
    rng = np.random.default_rng(4)
    true = rng.integers(0, 3, 60).tolist()
    said = [t if rng.random() < 0.7 else int(rng.integers(0, 3)) for t in true]
    return true, said


def confusion(true: list[int], said: list[int]) -> list[list[int]]:
    counts = [[0] * len(LABELS) for _ in LABELS]
    for row, column in zip(true, said, strict=True):
        counts[row][column] += 1
    return counts


def test_scores_are_scikit_learns(answers: tuple[list[int], list[int]]) -> None:
    counts = confusion(*answers)
    expected = precision_recall_fscore_support(*answers, labels=range(4), zero_division=0)
    scores = reports.label_scores(LABELS, counts)
    found = [[s.precision for s in scores], [s.recall for s in scores], [s.f1 for s in scores]]
    np.testing.assert_allclose(found, expected[:3])
    assert [score.support for score in scores] == expected[3].tolist()
    assert reports.accuracy(counts) == pytest.approx(accuracy_score(*answers))
    assert reports.macro_f1(LABELS, counts) == pytest.approx(f1_score(*answers, average="macro"))


def test_nothing_scores_nothing() -> None:
    empty = [[0, 0], [0, 0]]
    assert reports.accuracy(empty) == reports.macro_f1(["a", "b"], empty) == 0.0


def test_the_most_frequent_label_is_the_baseline() -> None:
    assert reports.majority_accuracy({"a": 3, "b": 5}, {"a": 3, "b": 1}) == 0.25
    assert reports.majority_accuracy({"a": 2, "b": 2}, {"a": 1}) == 1.0


def test_tables_hold_any_label() -> None:
    scores = reports.label_scores(["a|b\nc", "d"], [[1, 1], [0, 2]])
    assert "| a\\|b c | 1.000 | 0.500 | 0.667 | 2 |" in reports.scores_table(scores)
    lines = reports.confusion_table(["a|b", "d"], [[1, 1], [0, 2]]).splitlines()
    assert lines[0] == "| true ↓, said → | a\\|b | d |"
    assert lines[3] == "| d | 0 | 2 |"
    (hostile,) = reports.label_scores(["<img src=x> ![a](b) `c`"], [[1]])
    told = reports.scores_table([hostile]).splitlines()[2]
    assert told.startswith("| \\<img src=x\\> \\!\\[a\\](b) \\`c\\` | 1.000")


def test_right_is_green_and_wrong_is_red(tmp_path: Path) -> None:
    assert reports.draw_confusion(["a", "b"], [[9, 0], [7, 3]], tmp_path / "c.png")
    picture = Image.open(tmp_path / "c.png").convert("RGB")
    colours = {colour for _, colour in picture.getcolors(1 << 20) or []}
    assert reports._RIGHT in colours  # all of "a" is right
    greener = [c for c in colours if c[1] > c[0] + 30]
    redder = [c for c in colours if c[0] > c[1] + 30]
    assert greener
    assert redder


def test_too_many_labels_are_not_drawn(tmp_path: Path) -> None:
    many = [str(number) for number in range(reports.MOST_DRAWN + 1)]
    counts = [[0] * len(many) for _ in many]
    assert not reports.draw_confusion(many, counts, tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


# --- entities ---------------------------------------------------------------------------------


def test_an_entity_counts_only_when_all_of_it_is_right() -> None:
    counts = EntityCounts(["place", "person"])
    true = ["B-place", "I-place", "O", "B-person", "O", "B-place"]
    said = ["B-place", "O", "O", "B-person", "B-person", "B-person"]
    counts.add(said, true)
    place, person = counts.scores()
    assert (place.precision, place.recall, place.support) == (0.0, 0.0, 2)
    assert (person.precision, person.recall, person.support) == (pytest.approx(1 / 3), 1.0, 1)
    overall = counts.overall()
    assert (overall.precision, overall.recall, overall.support) == (0.25, pytest.approx(1 / 3), 3)
    assert overall.f1 == pytest.approx(2 / 7)


def test_counts_travel_as_numbers() -> None:
    counts = EntityCounts(["place"])
    counts.add(["B-place", "O"], ["B-place", "B-place"])
    other = EntityCounts(["place"])
    other.replace({name: 2 * value for name, value in counts.as_numbers().items()})
    assert (other.right["place"], other.said["place"], other.true["place"]) == (2, 2, 4)


def test_every_kind_can_begin_and_go_on() -> None:
    labels = tag_labels(["B-place", "O"], [{"tags": ["B-person", "I-person"]}])
    assert labels == ["O", "B-person", "I-person", "B-place", "I-place"]
    assert kinds_of(labels) == ["person", "place"]


def test_remembering_words_is_the_baseline() -> None:
    train = [(["Anna", "lives", "in", "Rome"], ["B-person", "O", "O", "B-place"])]
    valid = [(["rome", "loves", "Anna", "Berg"], ["B-place", "O", "B-person", "I-person"])]
    counts = remembering(train, valid, ["person", "place"])
    assert entities_of(valid[0][1])[1] == Entity(2, 4, "person")
    assert counts.overall().f1 == pytest.approx(0.5)
