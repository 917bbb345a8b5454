"""Which held-out prompts are answered for a report, and how their words are shown."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.integration.tiny_models import tokenizer
from worker.recipes.answers import Answers, quoted
from worker.recipes.texts import Encoder


class EchoModel:
    """Says its prompt's last token again, as often as it may; knows so many positions."""

    generation_config = SimpleNamespace(eos_token_id=None)

    def __init__(self, positions: int) -> None:
        self.config = SimpleNamespace(max_position_embeddings=positions)

    def generate(self, input_ids: Any, max_new_tokens: int, **_: Any) -> Any:
        assert 0 < max_new_tokens <= self.config.max_position_embeddings - input_ids.shape[1]
        return torch.cat([input_ids, input_ids[:, -1:].repeat(1, max_new_tokens)], dim=1)


@pytest.mark.parametrize(("positions", "max_length"), [(10, None), (40, 9), (10, 131_072)])
def test_prompts_that_are_too_long_are_left_out(positions: int, max_length: int | None) -> None:
    notes: list[str] = []
    context: Any = SimpleNamespace(
        plan=SimpleNamespace(generate=8),
        hyperparameters=SimpleNamespace(max_length=max_length),
        device="cpu",
        autocast=nullcontext,
        note=lambda text, level: notes.append(text),
    )
    prompts = ["the quick fox", "the quick fox " * 40, "fox"]
    rows = [{"prompt": prompt, "completion": "jumps"} for prompt in prompts]
    answers = Answers(context, EchoModel(positions), Encoder(tokenizer()), rows)
    assert len(answers.ask()) == 2
    assert notes == ["1 held-out prompts are too long to be answered"]


@pytest.mark.parametrize(
    ("words", "parts"), [(3, [62, 62, 6]), (1000, [13] * 10)], ids=["short", "long"]
)
def test_as_many_at_once_as_fit(words: int, parts: list[int]) -> None:
    calls: list[int] = []

    class Counting(EchoModel):
        def generate(self, input_ids: Any, max_new_tokens: int, **more: Any) -> Any:
            calls.append(len(input_ids))
            return super().generate(input_ids, max_new_tokens, **more)

    context: Any = SimpleNamespace(
        plan=SimpleNamespace(generate=130),
        hyperparameters=SimpleNamespace(max_length=None),
        device="cpu",
        autocast=nullcontext,
    )
    rows = [{"prompt": "fox " * words, "completion": "jumps"}] * 130
    answers = Answers(context, Counting(4096), Encoder(tokenizer()), rows)
    assert len(answers.ask()) == 130
    assert calls == parts


def test_words_of_tenants_are_no_markup() -> None:
    assert quoted("a\n# <b>`c``d`") == "``` a # <b>`c``d` ```"
    assert quoted("x" * 500).endswith("… `")
