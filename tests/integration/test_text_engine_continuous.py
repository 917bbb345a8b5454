"""transformers' manager behind the engine, on a CPU: truthful rows in turns with exact ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.integration.tiny_models import (
    body_of,
    completion,
    finish,
    load,
    make,
    run,
    small,
    texts,
)
from worker.engines.text import TextEngine

PROMPTS = ["the quick brown fox", "seven", "a lazy dog while seven rivers carry", "old boats"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**small())
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


@pytest.fixture(scope="module")
def continuous(folder: Path) -> Iterator[TextEngine]:
    engine = load(folder, scheduler="continuous", kv_cache_bytes=2**20)
    yield engine
    engine.close()


def test_the_manager_is_a_scheduler_like_any_other(continuous: TextEngine) -> None:
    assert continuous.detail["scheduler"] == "in_flight + continuous"


def test_greedy_rows_agree_with_the_slots(continuous: TextEngine, folder: Path) -> None:
    rows = [completion(i, p, max_tokens=5 + 6 * i) for i, p in enumerate(PROMPTS)]
    expected = run(load(folder), rows)
    found = run(continuous, rows)
    for index in range(len(rows)):
        assert texts(found[index]) == texts(expected[index])
        assert found[index]["usage"] == expected[index]["usage"]
        reasons = [body[index]["choices"][0]["finish_reason"] for body in (found, expected)]
        assert reasons[0] == reasons[1]


def test_seeded_and_penalised_rows_take_the_exact_lane(
    continuous: TextEngine, folder: Path
) -> None:
    rows = [
        completion(0, "the quick", max_tokens=12, temperature=1, seed=3),
        completion(1, "seven", max_tokens=12, frequency_penalty=1.5),
        completion(2, "old boats", max_tokens=12),
        completion(3, "old boats", max_tokens=12, temperature=0.8, top_p=0.9),
    ]
    expected = run(load(folder), rows)
    found = run(continuous, rows)
    for index in range(3):
        assert texts(found[index]) == texts(expected[index])
    assert found[3]["usage"]["completion_tokens"] in range(1, 13)


def test_a_stop_sequence_ends_a_row_of_the_manager(continuous: TextEngine, folder: Path) -> None:
    whole = texts(run(load(folder), [completion(0, "the quick", max_tokens=40)])[0])[0]
    stop = whole[6:9]
    body = run(continuous, [completion(0, "the quick", max_tokens=40, stop=stop)])[0]
    assert texts(body) == [whole[: whole.index(stop)]]
    assert body["choices"][0]["finish_reason"] == "stop"


def test_a_cancelled_shard_is_gone(continuous: TextEngine, folder: Path) -> None:
    for index in range(3):
        continuous.submit(1, 1, completion(index, "seven", max_tokens=200))
    continuous.step()
    continuous.cancel(1, 1)
    assert (continuous.active_rows, continuous.waiting_rows) == (0, 0)
    continuous.submit(2, 1, completion(0, "dog", max_tokens=6))
    results = finish(continuous)
    assert [result.shard for result in results] == [2]
    expected = run(load(folder), [completion(0, "dog", max_tokens=6)])[0]
    assert texts(body_of(results[0])) == texts(expected)
