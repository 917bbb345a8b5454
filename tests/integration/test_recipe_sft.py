"""Supervised fine-tuning of tiny random models: what is learnt, kept, delivered and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from tests.integration.tiny_models import END, generated, make, small, tokenizer
from tests.unit.worker.recipes.training_case import TrainingCase
from worker.engines.adapter_files import read_adapter
from worker.recipes.texts import Encoded, Encoder
from worker.recipes.token_batches import packed, packing_is_exact, padded, parts_by_size, token_loss
from worker.tuning.messages import Failed, Finished, Metrics, Note, Saved, Started

CPU = torch.device("cpu")
NUMBERS = {"n_epochs": 12, "batch_size": 4, "learning_rate": 0.01, "precision": "fp32"}
FOXES = ["fox", "dog", "boat", "sea", "word", "river"]

Case = Callable[..., TrainingCase]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny model")
    return make(folder, LlamaForCausalLM, LlamaConfig(**small(tie_word_embeddings=True)))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    numbers = iter(range(100))

    def one(rows: list[dict[str, Any]] | None = None) -> TrainingCase:
        made = TrainingCase(tmp_path / f"training {next(numbers)}")
        _write(made.data / "train.jsonl", rows or _rows(20))
        _write(made.data / "validation.jsonl", rows[:2] if rows else _rows(4))
        return made

    return one


def test_an_adapter_learns_and_is_delivered(case: Case, base: Path) -> None:
    training = case()
    _run(training, base)
    (started,), (finished,) = training.said(Started), training.said(Finished)
    assert (started.engine, started.adapter) == ("text", True)
    assert started.detail["trainable"] < started.detail["parameters"] / 2
    before, after = finished.metrics["before"], finished.metrics["after"]
    assert after["valid_loss"] < 0.2 * before["valid_loss"]
    assert after["full_valid_loss"] == after["valid_loss"]
    assert after["exact"] >= 0.5 > before["exact"] == 0
    assert after["rougeL"] > before["rougeL"]  # BLEU wants texts of four words
    assert {"bleu", "rouge1", "rouge2"} <= set(after)
    delivered = training.folder / "result" / "model"
    assert sorted(path.name for path in delivered.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((delivered / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    assert "auto_mapping" not in config
    assert len(read_adapter(delivered).layers) == 14  # the text engine takes it
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(model, delivered)
    assert _valid_loss(adapted, training) == pytest.approx(after["valid_loss"], rel=1e-4)


def test_all_weights_learn_and_are_delivered(case: Case, base: Path) -> None:
    training = case()
    _run(training, base, adapter="none")
    (started,), (finished,) = training.said(Started), training.said(Finished)
    assert not started.adapter
    assert started.detail["trainable"] == started.detail["parameters"]
    delivered = training.folder / "result" / "model"
    names = {path.name for path in delivered.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl", ".py")) for name in names)
    assert "_name_or_path" not in (delivered / "config.json").read_text()
    assert "lm_head.weight" not in load_file(delivered / "model.safetensors")  # tied
    model: Any = AutoModelForCausalLM.from_pretrained(delivered, dtype=torch.float32)
    after = finished.metrics["after"]["valid_loss"]
    assert after < 0.2 * finished.metrics["before"]["valid_loss"]
    assert _valid_loss(model, training) == pytest.approx(after, rel=1e-4)
    prompt = "<user>say fox\n<assistant>"
    assert generated(delivered, prompt, 8).startswith("the fox")


def test_reports_show_answers_side_by_side(case: Case, base: Path) -> None:
    training = case()
    _run(training, base)
    files = training.folder / "result" / "files"
    samples = [json.loads(line) for line in (files / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 4
    right = [sample["after"] == sample["wanted"] for sample in samples]
    told = training.said(Finished)[0].metrics["after"]["exact"]
    assert sum(right) / 4 == told >= 0.5
    report = (files / "report.md").read_text()
    assert "## Samples" in report
    assert "- **wanted**: ` the fox jumps `" in report
    assert "| rougeL |" in report
    assert not list(files.glob("answers-*"))
    numbers = [m for m in training.said(Metrics) if "train_loss" in m.values]
    assert all(0 <= m.values["train_mean_token_accuracy"] <= 1 for m in numbers)


@pytest.mark.parametrize(
    ("adapter", "more"),
    [
        ("lora", {"gradient_accumulation": 2}),
        ("lora", {"packing": True}),
        ("none", {"gradient_accumulation": 2}),
    ],
)
def test_it_goes_on_exactly(case: Case, base: Path, adapter: str, more: dict[str, Any]) -> None:
    """With dropout in the adapter, or weight decay on all weights."""
    plan = {
        "adapter": adapter,
        "lora": {"dropout": 0.3, "rank": 4},
        "hyperparameters": NUMBERS | {"weight_decay": 0.1, "n_epochs": 2} | more,
        "checkpoint_steps": 4,
        "generate": 0,
    }
    whole, again = case(), case()
    _run(whole, base, **plan)
    early = next(saved for saved in whole.said(Saved) if saved.step == 4)
    _run(again, base, resume=early.folder, **plan)
    assert again.said(Started)[0].step == 4
    first, second = (_last_state(training) for training in (whole, again))
    assert set(first) == set(second)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    one, other = whole.delivered(), again.delivered()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_an_adapter_is_tuned_further(case: Case, base: Path) -> None:
    first = case()
    _run(first, base, lora={"rank": 4, "alpha": 8.0}, hyperparameters=NUMBERS | {"max_steps": 10})
    adapter = first.folder / "result" / "model"
    second = case()
    _run(second, base, base_adapter=str(adapter))
    (ended,), (went_on,) = first.said(Finished), second.said(Finished)
    after = ended.metrics["after"]["valid_loss"]
    assert went_on.metrics["before"]["valid_loss"] == pytest.approx(after, rel=1e-4)
    assert went_on.metrics["after"]["valid_loss"] < after
    delivered = json.loads((second.folder / "result/model/adapter_config.json").read_text())
    assert (delivered["r"], delivered["lora_alpha"]) == (4, 8)
    third = case()
    _run(third, base, base_adapter=str(adapter), adapter="none")
    assert third.said(Failed)[0].code == "bad_base_adapter"


def test_completions_and_texts_are_learnt(case: Case, base: Path) -> None:
    for rows in (
        [{"prompt": f"say {word}:", "completion": f" the {word} jumps"} for word in FOXES * 3],
        [{"text": f"the {word} jumps over the lazy dog"} for word in FOXES * 3],
    ):
        training = case(rows)
        _run(training, base)
        (finished,) = training.said(Finished)
        before, after = finished.metrics["before"], finished.metrics["after"]
        assert after["valid_loss"] < 0.4 * before["valid_loss"]


def test_bad_wishes_are_named(case: Case, base: Path) -> None:
    training = case()
    _run(training, base, lora={"target_modules": ["nowhere"]})
    (failed,) = training.said(Failed)
    assert (failed.code, failed.blame) == ("bad_target_modules", "request")
    assert "q_proj" in failed.message
    missing = case()
    _run(missing, base / "nothing here")
    assert missing.said(Failed)[0].code == "base_model_unusable"


def test_long_examples_are_cut_and_told(case: Case, base: Path) -> None:
    training = case()
    _run(training, base, hyperparameters=NUMBERS | {"max_length": 24, "max_steps": 2}, generate=0)
    assert training.said(Note)[0].text.endswith("are cut to 24 tokens")


# --- layouts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (LlamaForCausalLM, LlamaConfig(**small())),
        (GPT2LMHeadModel, GPT2Config(**small(n_embd=32, n_layer=2, n_head=4, n_positions=256))),
    ],
    ids=["llama", "gpt2"],
)
def test_packed_losses_and_gradients_are_those_of_each_alone(kind: Any, config: Any) -> None:
    torch.manual_seed(3)
    model = kind(config).eval()
    examples = _examples()
    alone = [token_loss(model, padded([example], 0, CPU)) for example in examples]
    expected = torch.stack([loss.total for loss in alone]).sum()
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    for batch in (packed(examples, CPU), padded(examples, 0, CPU)):
        model.zero_grad()
        loss = token_loss(model, batch)
        loss.total.backward()
        assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
        assert int(loss.right) == sum(int(each.right) for each in alone)
        assert loss.trained == sum(example.trained_count for example in examples)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)


def test_packing_is_refused_where_state_crosses() -> None:
    torch.manual_seed(3)
    crossing = MambaForCausalLM(
        MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=8)
    ).eval()
    attending = LlamaForCausalLM(LlamaConfig(**small())).eval()
    assert packing_is_exact(attending, _examples(), CPU)
    assert not packing_is_exact(crossing, _examples(), CPU)


def test_parts_stay_within_their_size() -> None:
    lengths = [5, 90, 40, 40, 7, 200]
    parts = parts_by_size(range(6), lengths, 100)
    assert sorted(row for part in parts for row in part) == list(range(6))
    assert parts[0] == [5]
    for part in parts[1:]:
        assert len(part) * max(lengths[row] for row in part) <= 100


# --- helpers --------------------------------------------------------------------------------


def _rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"say {word}"},
                {"role": "assistant", "content": f"the {word} jumps"},
            ]
        }
        for word in (FOXES * count)[:count]
    ]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _run(training: TrainingCase, base: Path, **more: Any) -> None:
    plan = {"hyperparameters": NUMBERS, "checkpoint_steps": 1000} | more
    training.run_here(training.plan("supervised", base=str(base), **plan))


def _examples() -> list[Encoded]:
    texts = ["the quick brown fox", "a dog", "seven rivers carry old boats to the sea"]
    words = tokenizer()
    ids = [list(words(text + END)["input_ids"]) for text in texts]
    return [Encoded(each, [False, False] + [True] * (len(each) - 2)) for each in ids]


def _valid_loss(model: Any, training: TrainingCase) -> float:
    encoder = Encoder(tokenizer())
    lines = (training.data / "validation.jsonl").read_text().splitlines()
    examples = [encoder.encode(json.loads(line)) for line in lines]
    loss = token_loss(model.eval(), padded(examples, 0, CPU))
    return loss.total.item() / loss.trained


def _last_state(training: TrainingCase) -> dict[str, torch.Tensor]:
    return load_file(Path(training.said(Saved)[-1].folder) / "state.safetensors")
