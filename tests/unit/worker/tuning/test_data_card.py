"""The estimate of a training and the card of its data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.specs.fine_tuning import RecipeName
from tests.unit.worker.tuning.data_case import chats, jsonl, judge, labelled, spec_of
from worker.recipes.auto import resolve
from worker.tuning.data.card import dataset_card
from worker.tuning.data.estimate import estimate
from worker.tuning.data.examined import Examined


def examined_of(recipe: RecipeName = "supervised", **fields: Any) -> Examined:
    values: dict[str, Any] = {
        "recipe": recipe,
        "errors": [],
        "bad_lines": 0,
        "examples": 90,
        "validation_examples": 10,
        "held_out": True,
        "format": "chat",
        "fields": ["messages"],
        "characters": 40_000,
        "tokens": 10_000,
        "longest_tokens": 300,
        "lengths": [{"up_to": 128, "examples": 60}, {"up_to": 512, "examples": 40}],
        "bytes": 60_000,
        "digest": "d" * 64,
    }
    return Examined(**(values | fields))


def method(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def test_steps_and_tokens_follow_from_the_data() -> None:
    spec = spec_of("supervised", method=method(n_epochs=3, batch_size=8))
    found = estimate(spec, examined_of(), None)
    assert (found["n_epochs"], found["batch_size"]) == (3, 8)
    given = spec.options.hyperparameters.model_dump()
    resolved = resolve(given, recipe="supervised", examples=90, adapter=True)
    assert found["steps"] == resolved.steps
    assert 33 < found["steps"] <= 36
    assert found["examples_seen"] == 270
    assert found["trained_tokens"] == 27_000
    assert {"memory_bytes", "seconds", "cost"}.isdisjoint(found)
    assert set(found["computed"]) == {"steps", "trained_tokens"}


def test_examples_are_cut_and_steps_are_capped() -> None:
    spec = spec_of(
        "supervised", method=method(n_epochs=3, batch_size=10, max_length=50, max_steps=9)
    )
    found = estimate(spec, examined_of(), None)
    assert (found["steps"], found["examples_seen"], found["trained_tokens"]) == (9, 90, 4_500)


@pytest.mark.parametrize(("adapter", "memory", "flops"), [("none", 16, 6), ("lora", 4, 4)])
def test_memory_and_time_follow_from_the_model(adapter: str, memory: int, flops: int) -> None:
    options = method(n_epochs=1, batch_size=10)
    options["supervised"]["adapter"] = adapter
    found = estimate(spec_of("supervised", method=options), examined_of(), 10**9)
    assert found["memory_bytes"] == memory * 10**9
    assert found["seconds"] == 9_000 * 10**9 * flops // 10**12
    assert "assumed" in found["computed"]["seconds"]


def test_a_measured_speed_and_a_price_are_used() -> None:
    spec = spec_of("supervised", method=method(n_epochs=1))
    settings = {"train_tokens_per_second": 100, "train_cost_per_million_tokens": 2.5}
    found = estimate(spec, examined_of(), None, settings)
    assert (found["seconds"], found["cost"]) == (90, 0.0225)
    wrong = {"train_tokens_per_second": True, "train_cost_per_million_tokens": "much"}
    assert {"seconds", "cost"}.isdisjoint(estimate(spec, examined_of(), None, wrong))


def test_recipes_that_draw_have_no_tokens() -> None:
    found = estimate(spec_of("gan"), examined_of("gan"), 1_000)
    assert {"trained_tokens", "seconds", "cost"}.isdisjoint(found)
    assert found["steps"] > 0
    assert found["memory_bytes"] == 16_000


def test_what_a_job_shows_is_json() -> None:
    examined = judge("text_classification", jsonl(labelled(count=30)))
    found = json.loads(json.dumps(examined.found()))
    assert found["labels"] == {"bad": 15, "good": 15}
    assert (found["examples"], found["validation_examples"]) == (27, 3)
    assert found["sha256"] == examined.digest


def test_a_job_shows_the_most_frequent_of_many_labels() -> None:
    rows = labelled([f"l{n:03}" for n in range(300)] + ["l007", "l299"], 302)
    shown = judge("text_classification", jsonl(rows)).found()
    assert len(shown["labels"]) == 100
    assert shown["labels"]["l007"] == shown["labels"]["l299"] == 2
    assert list(shown["labels"]) == sorted(shown["labels"])
    assert shown["different_labels"] == 300


def test_the_card_says_what_the_data_are() -> None:
    examined = examined_of(
        "text_classification",
        labels={"b": 25, "a": 75},
        warnings=["1 training example repeats another one"],
    )
    numbers = {"steps": 1_200, "computed": {"steps": "so"}}
    card = dataset_card(
        examined, job_id="ftjob-1", filenames=["mine.csv", "my_check.csv"], estimate=numbers
    )
    assert card.startswith("# Data of ftjob-1\n")
    for line in [
        "| training file | mine.csv (chat) |",
        "| validation file | my\\_check.csv () |",
        "| examples to train on | 90 |",
        "| examples to validate on | 10, held out of the training file |",
        "| up to 128 | 60 | " + "█" * 30 + " |",
        "| up to 512 | 40 | " + "█" * 20 + " |",
        "| a | 75 | 75.0 % | " + "█" * 30 + " |",
        "2 labels; the most frequent has 3.0 times the rarest.",
        "- 1 training example repeats another one",
        "| steps | 1,200 | so |",
    ]:
        assert line in card.splitlines()
    assert card.index("| a |") < card.index("| b |")


def test_the_card_holds_no_texts_and_no_markup_of_others() -> None:
    examined = judge("supervised", jsonl(chats()))
    assert "question" not in dataset_card(examined, job_id="j", filenames=["a.jsonl"])
    card = dataset_card(
        examined_of("text_classification", labels={"<b>|x": 1, "b": 1}),
        job_id="j",
        filenames=["<script>a|b\n.csv"],
    )
    assert "<script>" not in card
    assert "\\<b\\>\\|x" in card
    assert len([line for line in card.splitlines() if line.startswith("| training file")]) == 1


def test_a_card_of_many_labels_shows_the_frequent_ones() -> None:
    labels = {f"label {n}": n + 1 for n in range(250)}
    card = dataset_card(
        examined_of("text_classification", labels=labels), job_id="j", filenames=["a.csv"]
    )
    assert "label 249" in card
    assert "| label 149 |" not in card
    assert "150 rarer labels are not shown." in card
