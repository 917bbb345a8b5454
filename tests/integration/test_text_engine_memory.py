"""Running out of memory in flight: smaller microbatches, no failed rows but the hopeless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.integration.tiny_models import (
    completion,
    finish,
    generated,
    load,
    make,
    run,
    small,
    texts,
)
from worker.engines.forward import Forward

PROMPTS = ["the quick", "seven rivers carry old boats", "a", "lazy dog", "日本語 🎉", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**small())
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


def test_out_of_memory_halves_the_microbatch_and_fails_no_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(folder, slots=8)
    rows = [completion(i, PROMPTS[i % 6], max_tokens=10, temperature=1, seed=i) for i in range(8)]
    expected = {i: texts(body) for i, body in run(engine, rows).items()}
    original = Forward.decode
    sizes: list[int] = []

    def cramped(self: Forward, tokens: Any, *more: Any) -> Any:
        sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, tokens, *more)

    monkeypatch.setattr(Forward, "decode", cramped)
    bodies = run(engine, rows)
    assert {i: texts(body) for i, body in bodies.items()} == expected
    assert sizes[0] > 3
    assert max(sizes[2:]) <= 3


def test_a_row_too_large_even_alone_fails_and_the_engine_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(folder)
    original = Forward.decode

    def refusing(self: Forward, tokens: Any, positions: Any, *more: Any) -> Any:
        if max(positions) > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")
        return original(self, tokens, positions, *more)

    monkeypatch.setattr(Forward, "decode", refusing)
    bodies = run(engine, [completion(0, "dog", max_tokens=9), completion(1, "dog", max_tokens=90)])
    assert bodies[1]["error"]["code"] == "out_of_memory"
    assert texts(bodies[0]) == [generated(folder, "dog", 9)]


def test_the_cache_budget_limits_rows_and_context(folder: Path) -> None:
    one_token = 2 * 2 * 2 * 8 * 4
    engine = load(folder, kv_cache_bytes=one_token * 100)
    assert engine.detail["max_context"] == 100
    for index in range(4):
        engine.submit(1, 1, completion(index, "dog", max_tokens=40))
    engine.step()
    assert 1 <= engine.active_rows < 4
    assert len(finish(engine)) == 4
    assert engine.resident_bytes > 0
