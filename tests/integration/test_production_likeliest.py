"""The best of an item's candidates by the view of the model that wrote them: the fake engine's,
and that of a tiny real one."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.integration.api_case import MODEL
from tests.integration.production_case import (
    CHAT,
    Asked,
    Press,
    Said,
    Writer,
    press_fixture,
)
from tests.integration.test_productions import check_sums, headed
from tests.integration.tiny_models import load, make, run, small
from worker.engines.fake_responses import fake_result
from worker.engines.protocol import Row

__all__ = ["press_fixture"]

LIKELIEST = "best_of: {rule: likeliest}"
Means = dict[tuple[int, ...], dict[str, float]]
"""By row, audience and model: each text and its mean logprob."""


def by_fake(body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(fake_result(CHAT, json.dumps(body).encode(), "m").body)
    return answer


def listening(engine: Any, means: Means) -> Writer:
    """What ``engine`` answers, noted down."""

    def writer(asked: Asked) -> Said:
        assert asked.body["logprobs"] is True
        answer = engine(asked.body)
        [choice] = answer["choices"]
        entries = choice["logprobs"]["content"]
        mean = math.fsum(entry["logprob"] for entry in entries) / len(entries)
        means[asked.place[:2]][choice["message"]["content"]] = mean
        return Said(body=answer)

    return writer


def kept(press: Press, production_id: str) -> list[str]:
    return [line["output"] for line in press.lines(production_id)]


def test_the_likeliest_text_of_the_fake_engine_is_kept(press: Press) -> None:
    production_id = press.submit_production(headed(f"n: 4\n{LIKELIEST}"))
    means: Means = defaultdict(dict)
    press.run(listening(by_fake, means))
    assert [len(texts) for texts in means.values()] == [4, 4, 4]
    assert kept(press, production_id) == [
        max(texts, key=texts.__getitem__) for _, texts in sorted(means.items())
    ]
    assert press.see(production_id)["phases"] == 1
    check_sums(press, production_id)


def test_the_likeliest_text_of_a_tiny_model_is_kept(press: Press, tmp_path: Path) -> None:
    folder = make(tmp_path / "tiny llama", LlamaForCausalLM, LlamaConfig(**small()))
    engine = load(folder)

    def by_model(body: dict[str, Any]) -> dict[str, Any]:
        return run(engine, [Row(0, CHAT, json.dumps(body).encode())])[0]

    head = f"n: 3\n{LIKELIEST}\nsampling: {{max_tokens: 12, temperature: 0.8}}"
    production_id = press.submit_production(headed(head))
    means: Means = defaultdict(dict)
    press.run(listening(by_model, means))
    wanted = [max(texts, key=texts.__getitem__) for _, texts in sorted(means.items())]
    assert [text.strip() for text in kept(press, production_id)] == [
        text.strip() for text in wanted
    ]
    assert {len(texts) for _, texts in sorted(means.items())} == {3}


def test_only_texts_that_passed_are_compared_and_each_round_counts_for_itself(press: Press) -> None:
    """A table's likeliest candidate is refused; in its second round it is the least likely."""
    template = headed(f"n: 2\nretries: 1\n{LIKELIEST}\ngates: {{forbidden: [bad], max_words: 3}}")
    production_id = press.submit_production(template)

    def writer(asked: Asked) -> Said:
        first = asked.place[3] == 0
        word = "bad" if asked.place[0] == 2 and not asked.round else "good"
        likely = -0.1 if first and not asked.round else -0.5 if not first else -9.0
        return said(f"{word} text {asked.place[3]}", likely)

    press.run(writer)
    assert kept(press, production_id) == ["good text 0", "good text 1", "good text 0"]
    check_sums(press, production_id)


def test_an_answer_that_does_not_tell_is_the_least_likely(press: Press) -> None:
    production_id = press.submit_production(headed(f"n: 2\n{LIKELIEST}"))
    press.run(lambda asked: said(f"text {asked.place[3]}", -30.0 if asked.place[3] else None))
    assert kept(press, production_id) == ["text 1"] * 3


@pytest.mark.parametrize("rule", ["first", "longest"])
def test_other_rules_do_not_ask(press: Press, rule: str) -> None:
    press.submit_production(headed(f"n: 2\nbest_of: {{rule: {rule}}}"))
    press.run(lambda asked: "one text")
    assert all("logprobs" not in asked.body for asked in press.asked)
    assert {asked.body["model"] for asked in press.asked} == {MODEL}


def said(text: str, likely: float | None) -> Said:
    entry = {"token": text, "bytes": list(text.encode()), "logprob": likely, "top_logprobs": []}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None if likely is None else {"content": [entry], "refusal": None},
        "finish_reason": "stop",
    }
    return Said(body={"choices": [choice], "usage": {}})
