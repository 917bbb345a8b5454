"""The recipe ``text_classification`` on tiny random models: it learns, resumes, and is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForSequenceClassification,
    CLIPConfig,
    CLIPModel,
)

from tests.integration.picture_recipe_case import Told, assert_same_weights, one_thread, resumed
from tests.integration.text_recipe_case import (
    HALF,
    STEPS,
    labels_of,
    tiny_bert,
    tiny_llama,
    topics,
    train,
)
from tests.integration.tiny_models import row, run, save, tokenizer
from worker.engines.classifier import create
from worker.engines.protocol import Load
from worker.recipes.text_classification import MOST_WEIGHT, class_weights
from worker.tuning.messages import Note, Started

__all__ = ["one_thread"]

ANIMALS = ["the quick fox", "a lazy dog", "quick brown dog jumps", "fox over lazy dog", "brown fox"]
WATERS = [
    "old boats to the sea",
    "seven rivers",
    "rivers carry boats",
    "the sea",
    "seven old boats",
]
ROWS = [
    {"text": f"{text} {end}", "label": label}
    for end in ("and so on", "", "while said", "until every word")
    for label, texts in (("animal", ANIMALS), ("water", WATERS))
    for text in texts
]
HELD_OUT, TRAIN = ROWS[:10], ROWS[10:]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("tiny bert"))


@pytest.fixture(scope="module")
def told(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("text classification") / "a folder"
    return train(folder, "text_classification", bert, train=TRAIN, valid=HELD_OUT)


def served(model: Path, texts: list[str]) -> list[dict[str, Any]]:
    settings = {"dtype": "float32", "device": "cpu"}
    engine = create(
        Load("ft:tiny", engine="classifier", source=str(model), settings=settings),
        lambda fraction, detail: None,
    )
    data: list[dict[str, Any]] = run(engine, [row(0, "/v1/classifications", {"input": texts})])[0][
        "data"
    ]
    return data


def test_it_learns(told: Told) -> None:
    before, *_, after = told.values("valid_loss")
    assert after < 0.5 * before
    assert told.finished.metrics["after"]["valid_accuracy"] >= 0.9
    assert told.finished.metrics["after"]["majority_accuracy"] == 0.5


def test_a_resumed_training_ends_with_the_same_weights(told: Told, tmp_path: Path) -> None:
    assert_same_weights(told, resumed(told, HALF, tmp_path / "again"))


def test_what_is_delivered_is_served_as_it_was_measured(told: Told) -> None:
    data = served(told.model, [row["text"] for row in HELD_OUT])
    right = [one["label"] == row["label"] for one, row in zip(data, HELD_OUT, strict=True)]
    assert sum(right) / len(right) == told.finished.metrics["after"]["valid_accuracy"]
    assert all({score["label"] for score in one["scores"]} == {"animal", "water"} for one in data)


def test_checkpoints_are_served_too(told: Told) -> None:
    assert [saved.step for saved in told.saved] == [HALF, STEPS]
    data = served(Path(told.saved[0].folder) / "model", ["the quick fox"])
    assert data[0]["label"] in {"animal", "water"}


def test_nothing_but_safetensors_and_text_is_delivered(told: Told) -> None:
    suffixes = {path.suffix for path in told.model.rglob("*")}
    assert suffixes <= {".safetensors", ".json", ".txt", ".jinja"}
    config = json.loads((told.model / "config.json").read_text())
    assert config["id2label"] == {"0": "animal", "1": "water"}


def test_the_report_has_tables_and_a_picture(told: Told) -> None:
    report = (told.folder / "result" / "files" / "report.md").read_text()
    assert "| animal | " in report
    assert "| true ↓, said → | animal | water |" in report
    assert isinstance(told.picture("confusion.png"), Image.Image)
    found = json.loads((told.folder / "result" / "files" / "classification.json").read_text())
    assert sum(map(sum, found["confusion"])) == len(HELD_OUT)


def test_lora_trains_little_and_delivers_a_whole_model(bert: Path, tmp_path: Path) -> None:
    told = train(
        tmp_path / "lora",
        "text_classification",
        bert,
        train=TRAIN,
        valid=HELD_OUT,
        adapter="lora",
        lora={"rank": 4},
    )
    (started,) = [message for message in told.said if isinstance(message, Started)]
    assert started.detail["adapter"] == "lora"
    assert started.detail["trainable"] < started.detail["parameters"] / 2
    assert not started.adapter
    before, *_, after = told.values("valid_loss")
    assert after < before
    data = served(told.model, [row["text"] for row in HELD_OUT])
    right = [one["label"] == row["label"] for one, row in zip(data, HELD_OUT, strict=True)]
    assert sum(right) / len(right) == told.finished.metrics["after"]["valid_accuracy"]
    assert_same_weights(told, resumed(told, HALF, tmp_path / "again"))


def test_a_causal_model_can_be_the_base(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "tiny llama")
    told = train(tmp_path / "run", "text_classification", base, train=TRAIN, valid=HELD_OUT)
    before, *_, after = told.values("valid_loss")
    assert after < before
    data = served(told.model, [row["text"] for row in HELD_OUT])
    right = [one["label"] == row["label"] for one, row in zip(data, HELD_OUT, strict=True)]
    assert sum(right) / len(right) == told.finished.metrics["after"]["valid_accuracy"]


def test_the_head_of_a_classifier_is_kept_for_its_own_labels_only(
    told: Told, tmp_path: Path
) -> None:
    again = train(
        tmp_path / "again", "text_classification", told.model, train=TRAIN, valid=HELD_OUT,
        hyperparameters={"max_steps": 1},
    )  # fmt: skip
    assert again.values("valid_loss")[0] == pytest.approx(
        told.finished.metrics["after"]["valid_loss"], rel=1e-5
    )
    turned = [{**row, "label": {"animal": "zoo", "water": "sea"}[row["label"]]} for row in ROWS]
    other = train(
        tmp_path / "other", "text_classification", told.model, train=turned, valid=turned[::5],
        hyperparameters={"max_steps": 1},
    )  # fmt: skip
    assert other.values("valid_loss")[0] > 0.4


def test_long_texts_are_cut_and_counted(bert: Path, tmp_path: Path) -> None:
    rows = [*TRAIN, {"text": "rivers " * 90, "label": "water"}]
    told = train(
        tmp_path / "cut", "text_classification", bert, train=rows, valid=HELD_OUT,
        hyperparameters={"max_length": 16, "max_steps": 2},
    )  # fmt: skip
    (started,) = [message for message in told.said if isinstance(message, Started)]
    assert started.detail["cut_examples"] == 1 + sum(
        len(tokenizer()(row["text"]).input_ids) > 16 for row in TRAIN
    )
    assert started.hyperparameters["max_length"] == 16


def test_rare_labels_count_more(bert: Path, tmp_path: Path) -> None:
    rows = [*TRAIN, *[row for row in TRAIN if row["label"] == "animal"] * 3]
    told = train(
        tmp_path / "rare", "text_classification", bert, train=rows, valid=HELD_OUT,
        hyperparameters={"max_steps": 1},
    )  # fmt: skip
    assert any(isinstance(message, Note) and "imbalanced" in message.text for message in told.said)


def test_class_weights() -> None:
    assert class_weights([0, 1, 1, 0, 1], 2).tolist() == [1.0, 1.0]
    weights = class_weights([0] * 8 + [1] * 2, 2)
    assert weights.tolist() == [0.625, 2.5]
    assert float(weights[torch.tensor([0] * 8 + [1] * 2)].mean()) == 1.0
    assert class_weights([0] * 999 + [1], 3).tolist() == pytest.approx(
        [500 / 999, MOST_WEIGHT, 1.0]
    )


def test_a_base_of_an_unfit_family_is_refused(tmp_path: Path) -> None:
    config = CLIPConfig(projection_dim=8)
    config.text_config.update({"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1})
    config.vision_config.update(
        {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1}
    )
    base = save(tmp_path / "clip", CLIPModel(config))
    told = train(tmp_path / "run", "text_classification", base, train=TRAIN, valid=HELD_OUT)
    assert (told.failed.code, told.failed.blame) == ("unsupported_base", "request")


def test_an_adapter_is_no_base(bert: Path, tmp_path: Path) -> None:
    told = train(
        tmp_path / "run", "text_classification", bert, train=TRAIN, valid=HELD_OUT,
        base_adapter="somewhere",
    )  # fmt: skip
    assert (told.failed.code, told.failed.param) == ("unsupported_base", "model")


def test_the_committed_topics_are_what_they_say() -> None:
    train_rows, held_out = topics("topics.csv"), topics("topics_held_out.csv")
    assert len(train_rows) >= 600
    assert len(held_out) == 150
    assert labels_of(train_rows) == labels_of(held_out)
    assert len({row["text"] for row in [*train_rows, *held_out]}) == len(train_rows) + 150


def test_the_delivered_directory_is_plain_transformers(told: Told) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(told.model)
    assert model.config.label2id == {"animal": 0, "water": 1}
