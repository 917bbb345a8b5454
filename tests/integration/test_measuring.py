"""Evaluations of tiny models, held against numbers that are computed here in another way."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from shared.specs.model_jobs import METRICS
from tests.integration.adapter_case import make_adapter
from tests.integration.model_job_case import (
    CONVERSATIONS,
    LABELS,
    SENTENCES,
    TEXTS,
    evaluate,
    finder,
    sorter,
    subject,
    writer,
)
from tests.integration.tiny_models import tokenizer
from worker.tuning.messages import STOP, Progressed, Stopped


def loss_of(folder: Path) -> float:
    """Nats a token of the answers, one conversation at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    words, total, count = tokenizer(), 0.0, 0
    for row in CONVERSATIONS:
        asked, answer = (message["content"] for message in row["messages"])
        ids = words(f"<user>{asked}\n<assistant>", add_special_tokens=False).input_ids
        wanted = words(f"{answer}\n", add_special_tokens=False).input_ids
        wanted = [*wanted, words.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([ids + wanted])).logits[0].log_softmax(-1)
        for place, token in enumerate(wanted, len(ids) - 1):
            total -= float(logits[place, token])
            count += 1
    return total / count


def test_texts_are_measured_as_they_are_served(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    lora = make_adapter(base, tmp_path / "lora", seed=3)
    told = evaluate(
        tmp_path / "job",
        CONVERSATIONS,
        subject(base),
        subject(base, "with adapter", adapter=str(lora)),
        metric="bleu",
    )
    plain, adapted = told.finished.metrics["models"]
    assert [plain["model"], adapted["model"]] == ["tiny", "with adapter"]
    assert plain["values"]["loss"] == pytest.approx(loss_of(base), rel=1e-4)
    assert plain["values"]["perplexity"] == pytest.approx(math.exp(loss_of(base)), rel=1e-3)
    assert set(plain["values"]) == set(METRICS["supervised"])
    assert adapted["values"]["loss"] != pytest.approx(plain["values"]["loss"], rel=1e-4)
    assert plain["examples"] == len(CONVERSATIONS)
    assert plain["tokens"] == adapted["tokens"] > 0
    assert any(isinstance(message, Progressed) for message in told.said)


def test_preferences_are_measured_by_the_better_answer(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    pairs = [
        {
            "prompt": row["messages"][:1],
            "chosen": row["messages"][1:],
            "rejected": [{"role": "assistant", "content": "привет"}],
        }
        for row in CONVERSATIONS
    ]
    (found,) = evaluate(tmp_path / "job", pairs, subject(base)).finished.metrics["models"]
    assert found["values"]["loss"] == pytest.approx(loss_of(base), rel=1e-4)
    assert "bleu" not in found["values"]


def test_labels_of_texts(tmp_path: Path) -> None:
    folder = sorter(tmp_path / "base")
    told = evaluate(
        tmp_path / "job",
        TEXTS,
        subject(folder, engine="classifier"),
        measured_as="text_classification",
        metric="accuracy",
    )
    (found,) = told.finished.metrics["models"]
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    right = 0
    for row in TEXTS:
        with torch.no_grad():
            logits = model(**tokenizer()(row["text"], return_tensors="pt")).logits
        right += LABELS[int(logits.argmax())] == row["label"]
    assert found["values"]["accuracy"] == pytest.approx(right / len(TEXTS))
    assert set(found["values"]) == set(METRICS["text_classification"])


def test_entities(tmp_path: Path) -> None:
    told = evaluate(
        tmp_path / "job",
        SENTENCES,
        subject(finder(tmp_path / "base"), engine="classifier"),
        measured_as="token_classification",
        metric="entity_f1",
    )
    (found,) = told.finished.metrics["models"]
    assert set(found["values"]) == set(METRICS["token_classification"])
    assert 0 <= found["values"]["word_accuracy"] <= 1
    assert found["values"]["loss"] > 0


def test_labels_that_the_model_does_not_know(tmp_path: Path) -> None:
    rows = [*TEXTS, {"text": "привет", "label": "unheard of"}]
    failed = evaluate(
        tmp_path / "job",
        rows,
        subject(sorter(tmp_path / "base"), engine="classifier"),
        measured_as="text_classification",
        metric="accuracy",
    ).failed
    assert (failed.code, failed.blame, failed.param) == ("unknown_label", "data", "file")


def test_a_metric_that_the_examples_do_not_allow(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    texts = [{"text": "the quick brown fox"}]
    failed = evaluate(tmp_path / "job", texts, subject(base), metric="bleu").failed
    assert (failed.code, failed.blame, failed.param) == (
        "metric_not_measured",
        "request",
        "metric",
    )


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    failed = evaluate(tmp_path / "job", CONVERSATIONS, subject(tmp_path / "nothing")).failed
    assert failed.code == "model_load_failed"
    assert str(tmp_path) not in failed.message


def test_asked_to_stop(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / STOP).touch()
    told = evaluate(tmp_path / "job", CONVERSATIONS, subject(base))
    assert isinstance(told.said[-1], Stopped)
