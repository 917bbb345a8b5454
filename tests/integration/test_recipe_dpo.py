"""The recipe ``dpo`` on tiny random models: preferences grow, and the reference stands still."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.integration.picture_recipe_case import Told, assert_same_weights, one_thread, resumed
from tests.integration.text_recipe_case import HALF, STEPS, preferences, tiny_llama, train
from tests.integration.tiny_models import completion as ask
from tests.integration.tiny_models import load, run, tokenizer
from worker.recipes.preferences import answered, read_pairs
from worker.recipes.texts import Encoder
from worker.recipes.token_batches import padded
from worker.tuning.messages import Started

__all__ = ["one_thread"]

QUESTIONS = ["the fox", "a dog", "seven rivers", "old boats", "the sea", "every word", "so on"]
LIKED, DISLIKED = "jumps over the lazy dog", "🎉🚀 said twice 🎉"


def pair(question: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": f"{LIKED} {question}"}],
        "rejected": [{"role": "assistant", "content": f"{DISLIKED} {question}"}],
    }


TRAIN = [pair(f"{one} while {other}") for one in QUESTIONS for other in QUESTIONS]
HELD_OUT = [pair(f"{one} and {other}") for one in QUESTIONS[:3] for other in QUESTIONS[3:]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny llama"))


@pytest.fixture(scope="module")
def told(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    return prefer(tmp_path_factory.mktemp("dpo") / "a folder", base)


def prefer(folder: Path, base: Path, **options: Any) -> Told:
    given = {"train": TRAIN, "valid": HELD_OUT, "labels": []} | options
    return train(folder, "dpo", base, **given)


def test_preferences_grow(told: Told) -> None:
    losses = told.values("valid_loss")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)  # the reference against itself
    assert losses[-1] < 0.8 * losses[0]
    assert told.values("valid_rewards_accuracy")[-1] == 1.0
    assert told.values("valid_rewards_margin")[-1] > 0
    before = told.finished.metrics["before"]["valid_preference_accuracy"]
    assert told.finished.metrics["after"]["valid_preference_accuracy"] >= before


def test_steps_say_how_they_went(told: Told) -> None:
    for name in ("rewards_accuracy", "rewards_margin", "chosen_log_probability"):
        assert told.values(name)
    assert all(value < 0 for value in told.values("rejected_log_probability"))


def test_a_resumed_training_ends_with_the_same_weights(told: Told, tmp_path: Path) -> None:
    assert_same_weights(told, resumed(told, HALF, tmp_path / "again"))


def test_an_adapter_is_delivered(told: Told) -> None:
    assert {path.name for path in told.model.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    (started,) = [message for message in told.said if isinstance(message, Started)]
    assert (started.engine, started.adapter) == ("text", True)
    assert [saved.step for saved in told.saved] == [HALF, STEPS]


def test_whole_weights_can_be_trained_and_served(base: Path, tmp_path: Path) -> None:
    told = prefer(tmp_path / "whole", base, adapter="none", generate=2)
    assert told.values("valid_loss")[-1] < math.log(2)
    engine = load(told.model)
    assert run(engine, [ask(0, "the fox")])[0]["choices"]
    assert (told.folder / "result" / "files" / "samples.jsonl").is_file()


def test_an_adapter_goes_on_from_where_it_was(base: Path, told: Told, tmp_path: Path) -> None:
    """The reference is then the base with that adapter: nothing has been gained at its start."""
    again = prefer(
        tmp_path / "again", base, base_adapter=str(told.model), hyperparameters={"max_steps": 2}
    )
    assert again.values("valid_loss")[0] == pytest.approx(math.log(2), abs=1e-4)
    assert again.values("valid_preference_accuracy")[0] == pytest.approx(
        told.finished.metrics["after"]["valid_preference_accuracy"]
    )


def test_log_probabilities_are_of_the_answers_tokens(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    encoder = Encoder(tokenizer())
    (given,) = read_pairs(encoder, [pair("the fox")])
    with torch.no_grad():
        batch = padded([given.chosen, given.rejected], 0, torch.device("cpu"))
        found = answered(model, batch).tolist()
        for example, total in zip((given.chosen, given.rejected), found, strict=True):
            chances = model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
            expected = sum(
                float(chances[place - 1, token])
                for place, token in enumerate(example.ids)
                if example.trained[place]
            )
            assert total == pytest.approx(expected, rel=1e-4)
    told = tokenizer().decode(
        [t for t, learnt in zip(given.chosen.ids, given.chosen.trained, strict=True) if learnt]
    )
    assert told.startswith(LIKED)


def test_the_committed_preferences_are_what_they_say() -> None:
    pairs, held_out = preferences("preferences.jsonl"), preferences("preferences_held_out.jsonl")
    assert len(pairs) >= 100
    assert len(held_out) >= 30
    asked = [{row["prompt"][0]["content"] for row in rows} for rows in (pairs, held_out)]
    assert not asked[0] & asked[1]
