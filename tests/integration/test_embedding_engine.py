"""The embedding engine on a tiny random BERT: pooling, sizes, encodings, company."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from tests.integration.tiny_models import (
    VOCABULARY,
    WORDS,
    body_of,
    finish,
    make,
    row,
    run,
    tokenizer,
)
from worker.engines.base import Engine, EngineFailed
from worker.engines.embedding import EmbeddingEngine, create
from worker.engines.protocol import Load

TEXTS = ["the quick", "seven rivers carry old boats to the sea", "a", WORDS[:60]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return make(tmp_path_factory.mktemp("tiny bert"), BertModel, config)


def load(folder: Path, **settings: Any) -> Engine:
    given = {"dtype": "float32", "device": "cpu", "microbatch_rows": 3, **settings}
    message = Load("tiny", engine="embedding", source=str(folder), settings=given)
    return create(message, lambda fraction, detail: None)


def embed(engine: Engine, texts: str | list[str], **more: Any) -> NDArray[np.float32]:
    body = run(engine, [row(0, "/v1/embeddings", {"input": texts, **more})])[0]
    assert [item["index"] for item in body["data"]] == list(range(len(body["data"])))
    vectors = [item["embedding"] for item in body["data"]]
    if more.get("encoding_format") == "base64":
        return np.stack([np.frombuffer(base64.b64decode(v), "<f4") for v in vectors])
    return np.array(vectors, np.float32)


def by_hand(folder: Path, text: str, pooling: str = "mean") -> NDArray[np.float32]:
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        states = model(**tokenizer()(text, return_tensors="pt")).last_hidden_state[0]
    pooled = {"mean": states.mean(0), "cls": states[0], "max": states.amax(0)}[pooling]
    vector: NDArray[np.float32] = (pooled / pooled.norm()).numpy()
    return vector


def describe(folder: Path, target: Path, pooling: str) -> Path:
    """A copy of the model with sentence-transformers' files."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    names = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {"type": f"sentence_transformers.models.{name}", "path": f"{i}_{name}" if i else ""}
        for i, name in enumerate(names)
    ]
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "1_Pooling").mkdir()
    flags = {"word_embedding_dimension": 32, f"pooling_mode_{pooling}": True}
    (target / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    (target / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    return target


def test_vectors_are_the_normalised_mean_whatever_the_company(folder: Path) -> None:
    found = embed(load(folder), TEXTS)
    expected = np.stack([by_hand(folder, text) for text in TEXTS])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("flag", "pooling"), [("cls_token", "cls"), ("max_tokens", "max")])
def test_pooling_and_length_come_from_the_models_files(
    folder: Path, tmp_path: Path, flag: str, pooling: str
) -> None:
    engine = load(describe(folder, tmp_path / pooling, flag))
    assert engine.detail["max_tokens"] == 20
    expected = by_hand(folder, "the quick", pooling)
    np.testing.assert_allclose(embed(engine, "the quick")[0], expected, atol=1e-5)


def test_an_unknown_pooling_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="weightedmean") as failed:
        load(describe(folder, tmp_path / "odd", "weightedmean_tokens"))
    assert failed.value.code == "model_load_failed"


def test_fewer_dimensions_are_normalised_again(folder: Path) -> None:
    engine = load(folder)
    whole = embed(engine, TEXTS)
    cut = embed(engine, TEXTS, dimensions=8)
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_base64_carries_the_same_floats(folder: Path) -> None:
    engine = load(folder)
    plain = embed(engine, TEXTS)
    np.testing.assert_array_equal(embed(engine, TEXTS, encoding_format="base64"), plain)


def test_usage_counts_tokens(folder: Path) -> None:
    body = run(load(folder), [row(0, "/v1/embeddings", {"input": TEXTS})])[0]
    tokens = sum(len(tokenizer()(text).input_ids) for text in TEXTS)
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert body["object"] == "list"


def test_of_too_long_an_input_the_beginning_is_read_where_that_is_asked_for(folder: Path) -> None:
    engine = load(folder)
    body = {"input": ["a", WORDS * 3, WORDS * 4], "truncate": True}
    answer = run(engine, [row(0, "/v1/embeddings", body)])[0]

    short, first, second = (item["embedding"] for item in answer["data"])
    assert first == pytest.approx(second, abs=1e-5)
    assert answer["usage"]["prompt_tokens"] > 2 * engine.detail["max_tokens"]
    assert short == pytest.approx(embed(engine, "a")[0].tolist(), abs=1e-5)


def test_too_long_an_input_and_too_many_dimensions_are_refused(folder: Path) -> None:
    engine = load(folder)
    rows = [
        row(0, "/v1/embeddings", {"input": ["a", WORDS * 3]}),
        row(1, "/v1/embeddings", {"input": "a", "dimensions": 33}),
        row(2, "/v1/completions", {"prompt": "a"}),
    ]
    bodies = run(engine, rows)
    assert bodies[0]["error"]["code"] == "context_length_exceeded"
    assert "input 1" in bodies[0]["error"]["message"]
    assert bodies[1]["error"]["param"] == "dimensions"
    assert bodies[2]["error"]["code"] == "invalid_request"
    assert not engine.busy


def test_a_cancelled_shard_says_nothing_more(folder: Path) -> None:
    engine = load(folder)
    engine.submit(1, 1, row(0, "/v1/embeddings", {"input": TEXTS}))
    engine.submit(2, 1, row(0, "/v1/embeddings", {"input": "dog"}))
    engine.cancel(1, 1)
    assert [result.shard for result in finish(engine)] == [2]


def test_out_of_memory_splits_and_a_lone_input_fails_its_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(folder)
    original = EmbeddingEngine._embed

    def cramped(self: EmbeddingEngine, rows: Any) -> Any:
        if len(rows) > 1 or len(rows[0]) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, rows)

    monkeypatch.setattr(EmbeddingEngine, "_embed", cramped)
    engine.submit(1, 1, row(0, "/v1/embeddings", {"input": ["a", "dog", "the quick"]}))
    engine.submit(1, 1, row(1, "/v1/embeddings", {"input": ["a", WORDS[:100]]}))
    results = {result.index: result for result in finish(engine)}
    assert results[0].status == 200
    assert results[1].status == 500
    assert body_of(results[1])["error"]["code"] == "out_of_memory"


def test_a_token_that_the_model_does_not_know_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    more = tokenizer()
    more.add_tokens([f"<extra {number}>" for number in range(VOCABULARY)])
    more.save_pretrained(tmp_path / "model")
    body = {"input": ["the", f"<extra {VOCABULARY - 1}>"]}
    refused = load(tmp_path / "model").submit(1, 1, row(0, "/v1/embeddings", body))
    assert refused is not None
    assert (refused.status, body_of(refused)["error"]["param"]) == (400, "input")


def test_a_text_that_a_tokenizer_makes_nothing_of_has_a_vector_too(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    bare = Tokenizer(models.WordLevel({"[UNK]": 0, "fox": 1}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]", pad_token="[UNK]")
    wrapped.save_pretrained(tmp_path / "model")
    engine = load(tmp_path / "model")

    alone, again = embed(engine, " "), embed(engine, ["fox", " "])
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(again[1], alone[0], atol=1e-5)
