"""The recipe ``token_classification`` on tiny random models: it learns, resumes, and is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.picture_recipe_case import Told, assert_same_weights, one_thread, resumed
from tests.integration.text_recipe_case import (
    STEPS,
    labels_of,
    sentences,
    tiny_bert,
    tiny_llama,
    train,
)
from tests.integration.tiny_models import row, run
from worker.engines.classifier import create
from worker.engines.entities import entities_of, joined
from worker.engines.protocol import Load
from worker.tuning.messages import Note, Started

__all__ = ["one_thread"]

STARTS = ["while the", "a lazy", "so on until", "said twice and", "over seven"]
KINDS = {"animal": ["quick brown fox", "dog"], "water": ["rivers", "old boats sea"]}


def sentence(start: str, kind: str, name: str, end: str) -> dict[str, Any]:
    words = name.split()
    tags = [f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)]
    before, after = start.split(), end.split()
    return {
        "tokens": [*before, *words, *after],
        "tags": [*["O"] * len(before), *tags, *["O"] * len(after)],
    }


ROWS = [
    sentence(start, kind, name, end)
    for end in ("jumps .", "has been", ", every word")
    for start in STARTS
    for kind, names in KINDS.items()
    for name in names
]
HELD_OUT, TRAIN = ROWS[:20], ROWS[20:]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("tiny bert"))


@pytest.fixture(scope="module")
def told(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("token classification") / "a folder"
    return train(
        folder, "token_classification", bert, train=TRAIN, valid=HELD_OUT,
        checkpoint_steps=STEPS, evaluate_steps=STEPS,
        hyperparameters={"max_steps": 2 * STEPS, "learning_rate": 5e-3, "batch_size": 16},
    )  # fmt: skip


def served(model: Path, texts: list[str]) -> list[dict[str, Any]]:
    settings = {"dtype": "float32", "device": "cpu"}
    engine = create(
        Load("ft:tiny", engine="classifier", source=str(model), settings=settings),
        lambda fraction, detail: None,
    )
    body = run(engine, [row(0, "/v1/classifications", {"input": texts})])[0]
    found: list[dict[str, Any]] = body["data"]
    return found


def expected_entities(rows: list[dict[str, Any]]) -> list[set[tuple[int, int, str]]]:
    """Characters and kinds, of the texts that ``joined`` makes of the words."""
    expected = []
    for given in rows:
        _, spans = joined(given["tokens"])
        expected.append(
            {
                (spans[one.start][0], spans[one.end - 1][1], one.label)
                for one in entities_of(given["tags"])
            }
        )
    return expected


def recall_of(model: Path) -> float:
    """Of the entities that are held out, as an engine finds them in plain text."""
    texts = [joined(given["tokens"])[0] for given in HELD_OUT]
    right = whole = 0
    for item, expected in zip(served(model, texts), expected_entities(HELD_OUT), strict=True):
        found = {(e["start"], e["end"], e["label"]) for e in item["entities"]}
        right += len(found & expected)
        whole += len(expected)
    return right / whole


def test_it_learns(told: Told) -> None:
    before, *_, after = told.values("valid_loss")
    assert after < 0.3 * before
    first, *_, last = told.values("valid_entity_f1")
    assert last >= 0.8
    assert last > first + 0.5


def test_a_resumed_training_ends_with_the_same_weights(told: Told, tmp_path: Path) -> None:
    assert_same_weights(told, resumed(told, STEPS, tmp_path / "again"))


def test_what_is_delivered_is_served_as_it_was_measured(told: Told) -> None:
    assert recall_of(told.model) == pytest.approx(
        told.finished.metrics["after"]["valid_entity_recall"]
    )


def test_checkpoints_are_served_too(told: Told) -> None:
    assert [saved.step for saved in told.saved] == [STEPS, 2 * STEPS]
    assert "entities" in served(Path(told.saved[0].folder) / "model", ["the dog"])[0]


def test_the_report_states_what_there_is_to_be_better_than(told: Told) -> None:
    report = (told.folder / "result" / "files" / "report.md").read_text()
    assert "| animal | " in report
    found = json.loads((told.folder / "result" / "files" / "entities.json").read_text())
    assert 0 < found["outside_share"] < 1
    assert {score["label"] for score in found["entities"]} == {"animal", "water", "all"}
    after = told.finished.metrics["after"]
    assert after["remembering_entity_f1"] == found["remembering_entity_f1"]


def test_lora_delivers_a_whole_model(bert: Path, tmp_path: Path) -> None:
    told = train(
        tmp_path / "lora", "token_classification", bert, train=TRAIN, valid=HELD_OUT,
        adapter="lora", hyperparameters={"learning_rate": 1e-2},
    )  # fmt: skip
    before, *_, after = told.values("valid_loss")
    assert after < before
    assert recall_of(told.model) == pytest.approx(
        told.finished.metrics["after"]["valid_entity_recall"]
    )


def test_a_causal_model_can_be_the_base(tmp_path: Path) -> None:
    told = train(
        tmp_path / "run", "token_classification", tiny_llama(tmp_path / "llama"),
        train=TRAIN, valid=HELD_OUT,
    )  # fmt: skip
    before, *_, after = told.values("valid_loss")
    assert after < before
    assert recall_of(told.model) == pytest.approx(
        told.finished.metrics["after"]["valid_entity_recall"]
    )


def test_long_sentences_are_cut_and_counted(bert: Path, tmp_path: Path) -> None:
    told = train(
        tmp_path / "cut", "token_classification", bert, train=TRAIN, valid=HELD_OUT,
        hyperparameters={"max_length": 8, "max_steps": 2},
    )  # fmt: skip
    (started,) = [message for message in told.said if isinstance(message, Started)]
    assert started.detail["cut_words"] > 0
    assert started.hyperparameters["max_length"] == 8


def test_entities_that_begin_in_the_middle_are_mended(bert: Path, tmp_path: Path) -> None:
    mended = [{"tokens": ["the", "fox"], "tags": ["O", "I-animal"]}, *TRAIN]
    told = train(
        tmp_path / "mended", "token_classification", bert, train=mended, valid=HELD_OUT,
        hyperparameters={"max_steps": 1},
    )  # fmt: skip
    notes = [message.text for message in told.said if isinstance(message, Note)]
    assert any(text.startswith("1 tags 'I-…'") for text in notes)


def test_the_committed_names_are_what_they_say() -> None:
    train_rows, held_out = sentences("names.conll"), sentences("names_held_out.conll")
    assert len(train_rows) >= 400
    assert len(held_out) >= 100
    assert labels_of(train_rows) == labels_of(held_out)
    known = {
        tuple(given["tokens"][one.start : one.end])
        for given in train_rows
        for one in entities_of(given["tags"])
    }
    unseen = {
        tuple(given["tokens"][one.start : one.end])
        for given in held_out
        for one in entities_of(given["tags"])
    }
    assert not known & unseen
