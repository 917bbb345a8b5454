"""The classifier engine on tiny models: scores, entities and where they are, cutting, company."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from tests.integration.tiny_models import (
    VOCABULARY,
    WORDS,
    body_of,
    finish,
    make,
    row,
    run,
    save,
    small,
    tokenizer,
)
from worker.engines.base import Engine, EngineFailed
from worker.engines.classifier import ClassifierEngine
from worker.engines.protocol import Load
from worker.engines.registry import create_engine

ENDPOINT = "/v1/classifications"
TOPICS = {0: "animal", 1: "water", 2: "other"}
TAGS = ["O", "B-animal", "I-animal", "B-water", "I-water"]
TEXTS = ["the quick", "seven rivers carry old boats to the sea", "a", WORDS[:60], "the the"]


def bert(**more: Any) -> BertConfig:
    values = small(max_position_embeddings=64, **more)
    del values["num_key_value_heads"]
    return BertConfig(**values)


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("topic model")
    return make(folder, BertForSequenceClassification, bert(id2label=TOPICS))


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Knows a few words and nothing of their company: ``quick`` and ``fox`` make one animal,
    ``rivers`` are water."""
    config = bert(num_hidden_layers=0, id2label=dict(enumerate(TAGS)))
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in model.bert.embeddings.parameters():
            parameter.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1.0)
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0]))
        for place, (word, tag) in enumerate([("quick", 1), ("fox", 2), ("rivers", 3)]):
            first = tokenizer()(f" {word}").input_ids[0]
            model.bert.embeddings.word_embeddings.weight[first, place] = 1.0
            model.classifier.weight[tag, place] = 2.0
    return save(tmp_path_factory.mktemp("finder"), model)


def load(folder: Path, **settings: Any) -> Engine:
    given = {"dtype": "float32", "device": "cpu", "microbatch_rows": 3, **settings}
    message = Load("tiny", engine="classifier", source=str(folder), settings=given)
    return create_engine(message, lambda fraction, detail: None)


def classify(engine: Engine, texts: str | list[str], **more: Any) -> list[dict[str, Any]]:
    body = run(engine, [row(0, ENDPOINT, {"input": texts, **more})])[0]
    assert (body["object"], body["model"]) == ("list", "tiny")
    data: list[dict[str, Any]] = body["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    assert {item["object"] for item in data} == {"classification"}
    return data


def by_hand(folder: Path, text: str) -> dict[str, float]:
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(**tokenizer()(text, return_tensors="pt")).logits[0]
    return {TOPICS[n]: float(share) for n, share in enumerate(torch.softmax(logits, 0))}


def test_scores_are_the_models_whatever_the_company(topics: Path) -> None:
    for item, text in zip(classify(load(topics), TEXTS), TEXTS, strict=True):
        expected = by_hand(topics, text)
        assert {s["label"]: s["score"] for s in item["scores"]} == pytest.approx(expected, abs=1e-5)
        assert item["label"] == max(expected, key=expected.__getitem__)
        assert item["score"] == item["scores"][0]["score"]
        assert item["scores"] == sorted(item["scores"], key=lambda s: -s["score"])


def test_a_causal_model_reads_each_text_to_its_own_end(tmp_path: Path) -> None:
    config = LlamaConfig(**small(id2label=TOPICS))
    folder = make(tmp_path, LlamaForSequenceClassification, config)
    together = classify(load(folder, microbatch_rows=5), TEXTS)
    for item, text in zip(together, TEXTS, strict=True):
        expected = by_hand(folder, text)
        assert {s["label"]: s["score"] for s in item["scores"]} == pytest.approx(expected, abs=1e-5)


def test_top_k_lists_fewer(topics: Path) -> None:
    (item,) = classify(load(topics), "the quick", top_k=2)
    (whole,) = classify(load(topics), "the quick")
    assert item["scores"] == whole["scores"][:2]


def test_labels_that_may_be_several_have_shares_of_their_own(topics: Path, tmp_path: Path) -> None:
    several = bert(id2label=TOPICS, problem_type="multi_label_classification")
    folder = make(tmp_path, BertForSequenceClassification, several)
    (item,) = classify(load(folder), "the quick")
    shares = np.array([s["score"] for s in item["scores"]])
    odds = {s["label"]: np.log(s["score"] / (1 - s["score"])) for s in item["scores"]}
    assert shares.sum() != pytest.approx(1.0)
    single = by_hand(folder, "the quick")  # the same weights: softmax of the same logits
    expected = np.exp(list(odds.values())) / np.exp(list(odds.values())).sum()
    assert dict(zip(odds, expected, strict=True)) == pytest.approx(single, abs=1e-4)


def test_entities_are_where_the_text_has_them(finder: Path) -> None:
    text = "said the quick fox, while rivers  carry\n old rivers."
    (item,) = classify(load(finder), text)
    found = [(e["text"], e["label"]) for e in item["entities"]]
    assert found == [("quick fox", "animal"), ("rivers", "water"), ("rivers", "water")]
    for entity in item["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert 0.5 < entity["score"] <= 1.0
    assert "label" not in item


def test_tags_are_read_together(finder: Path) -> None:
    """A ``fox`` only ever goes on with an animal, so the word before it must have begun it."""
    (item,) = classify(load(finder), "while the fox")
    assert [e["text"] for e in item["entities"]] == ["the fox"]


def test_texts_without_words_have_no_entities(finder: Path) -> None:
    assert [item["entities"] for item in classify(load(finder), [" ", "\n\t "])] == [[], []]


def test_long_texts_are_cut_and_say_so(finder: Path, topics: Path) -> None:
    text = "the quick " + "dog " * 80 + "rivers"
    long, short = classify(load(finder), [text, "the quick"])
    assert (long["truncated"], short["truncated"]) == (True, False)
    assert [e["text"] for e in long["entities"]] == ["quick"]
    engine = load(topics, max_tokens=8)
    assert engine.detail["max_tokens"] == 8
    exactly = tokenizer().decode(tokenizer()(text).input_ids[:8])
    cut, whole = classify(engine, [text, exactly])
    assert (cut["truncated"], whole["truncated"]) == (True, False)
    assert cut["scores"] == whole["scores"]


def test_usage_counts_the_tokens_that_were_read(topics: Path) -> None:
    body = run(load(topics), [row(0, ENDPOINT, {"input": ["a", WORDS * 3]})])[0]
    tokens = len(tokenizer()("a").input_ids) + 64
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_what_cannot_be_asked_is_refused(topics: Path, finder: Path) -> None:
    bodies = run(
        load(finder),
        [
            row(0, ENDPOINT, {"input": "the fox", "top_k": 2}),
            row(1, "/v1/embeddings", {"input": "a"}),
        ],
    )
    assert bodies[0]["error"]["code"] == "unsupported_parameter"
    assert bodies[0]["error"]["param"] == "top_k"
    assert bodies[1]["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("kind", "labels"), [(BertModel, TOPICS), (BertForSequenceClassification, {0: "score"})]
)
def test_models_that_give_no_labels_are_refused(
    tmp_path: Path, kind: Any, labels: dict[int, str]
) -> None:
    folder = make(tmp_path, kind, bert(id2label=labels))
    with pytest.raises(EngineFailed) as failed:
        load(folder)
    assert failed.value.code == "model_load_failed"


def test_a_token_that_the_model_does_not_know_is_refused(topics: Path, tmp_path: Path) -> None:
    shutil.copytree(topics, tmp_path / "model")
    more = tokenizer()
    more.add_tokens([f"<extra {number}>" for number in range(VOCABULARY)])
    more.save_pretrained(tmp_path / "model")
    body = {"input": ["the", f"<extra {VOCABULARY - 1}>"]}
    refused = load(tmp_path / "model").submit(1, 1, row(0, ENDPOINT, body))
    assert refused is not None
    assert (refused.status, body_of(refused)["error"]["param"]) == (400, "input")


def test_a_cancelled_shard_says_nothing_more(topics: Path) -> None:
    engine = load(topics)
    engine.submit(1, 1, row(0, ENDPOINT, {"input": TEXTS}))
    engine.submit(2, 1, row(0, ENDPOINT, {"input": "dog"}))
    engine.cancel(1, 1)
    assert [result.shard for result in finish(engine)] == [2]
    assert not engine.busy


def test_out_of_memory_splits_and_a_lone_input_fails_its_row(
    topics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(topics)
    original = ClassifierEngine._outputs

    def cramped(self: ClassifierEngine, rows: Any) -> Any:
        if len(rows) > 1 or len(rows[0]) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, rows)

    monkeypatch.setattr(ClassifierEngine, "_outputs", cramped)
    engine.submit(1, 1, row(0, ENDPOINT, {"input": ["a", "dog", "the quick"]}))
    engine.submit(1, 1, row(1, ENDPOINT, {"input": ["a", WORDS[:100]]}))
    results = {result.index: result for result in finish(engine)}
    assert results[0].status == 200
    assert [item["index"] for item in body_of(results[0])["data"]] == [0, 1, 2]
    assert results[1].status == 500
    assert body_of(results[1])["error"]["code"] == "out_of_memory"
