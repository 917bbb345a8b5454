"""The text engine on a CUDA device; each test is skipped, visibly, where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.integration.tiny_models import completion, load, make, run, small, texts
from worker.engines.text import TextEngine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
PROMPTS = ["the quick brown fox", "seven", "a lazy dog while seven rivers carry", "old boats"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # heads of 64: flash attention's kernels take no smaller ones
    config = LlamaConfig(**small(hidden_size=256))
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


@pytest.fixture(params=["in_flight", "static", "continuous"])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[TextEngine]:
    made = load(folder, device="cuda", scheduler=request.param, kv_cache_bytes=2**28)
    yield made
    made.close()


def test_greedy_rows_agree_with_the_cpu(engine: TextEngine, folder: Path) -> None:
    rows = [completion(i, p, max_tokens=5 + 6 * i) for i, p in enumerate(PROMPTS)]
    expected = run(load(folder), rows)
    found = run(engine, rows)
    assert [texts(found[i]) for i in range(4)] == [texts(expected[i]) for i in range(4)]


def test_a_seed_gives_the_same_text_in_any_company(engine: TextEngine) -> None:
    seeded = completion(0, "the quick", max_tokens=16, temperature=0.9, top_p=0.9, seed=5)
    alone = texts(run(engine, [seeded])[0])
    company = [completion(i, PROMPTS[i], max_tokens=20, temperature=1) for i in range(1, 4)]
    assert texts(run(engine, [*company, seeded])[0]) == alone


def test_running_out_of_device_memory_fails_no_row(folder: Path) -> None:
    engine = load(folder, device="cuda", scheduler="in_flight", slots=64, max_context=256)
    rows = [completion(i, PROMPTS[i % 4], max_tokens=200) for i in range(64)]
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - 24 * 2**20, dtype=torch.uint8, device="cuda")
    bodies = run(engine, rows)
    del hog
    assert all("choices" in body for body in bodies.values())


def test_the_default_dtype_is_half_precision(folder: Path) -> None:
    engine = load(folder, device="cuda", dtype=None)
    assert engine.detail["dtype"] in ("bfloat16", "float16")
