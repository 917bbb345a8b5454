"""Tiny models made smaller: what is written is served at once, and the table tells the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
)

from tests.integration.adapter_case import make_adapter, merged, merged_says
from tests.integration.model_job_case import (
    CONVERSATIONS,
    FLOAT,
    TEXTS,
    optimize,
    sorter,
    subject,
    writer,
)
from tests.integration.picture_recipe_case import Told
from tests.integration.tiny_models import completion, load, make, row, run, small, texts
from worker.engines.classifier import create as create_classifier
from worker.engines.loading import weight_bytes_of
from worker.engines.protocol import Load
from worker.engines.quantized import FILE, QuantizedLinear
from worker.recipes import optimizing_looks
from worker.recipes.optimizing_channels import cut_channels
from worker.recipes.shape import RecipeError

INT8, INT4 = {"type": "quantize", "scheme": "int8"}, {"type": "quantize", "scheme": "int4"}
PROMPT = "the quick brown fox"


@pytest.fixture(autouse=True)
def _few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks here how quick a tiny model is."""
    monkeypatch.setattr(optimizing_looks, "ROUNDS", 1)
    monkeypatch.setattr(optimizing_looks, "NEW_TOKENS", 2)
    monkeypatch.setattr(optimizing_looks, "TOGETHER", 2)


def says(folder: Path, **settings: Any) -> list[str]:
    """Greedy, four rows in one microbatch, by the engine that serves."""
    engine = load(folder, **settings)
    assert engine.detail["scheduler"] == "in_flight", engine.detail["why"]
    bodies = run(engine, [completion(n, PROMPT + " old" * n, max_tokens=8) for n in range(4)])
    return [text for number in range(4) for text in texts(bodies[number])]


def table_of(told: Told) -> dict[str, Any]:
    metrics = told.finished.metrics
    assert metrics["refused"] is None
    table: dict[str, Any] = metrics["table"]
    return table


def stored_kinds(folder: Path) -> set[str]:
    found = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
    return found


# --- merging ----------------------------------------------------------------------------------


def test_a_merged_adapter_says_what_the_adapter_said(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    lora = make_adapter(base, tmp_path / "lora", seed=3)
    told = optimize(
        tmp_path / "job", CONVERSATIONS, subject(base, adapter=str(lora)), {"type": "merge"}
    )
    quality = table_of(told)["quality"]["loss"]
    assert quality["after"] == pytest.approx(quality["before"], rel=1e-4)
    assert says(told.model)[0] == merged_says(merged(base, lora), PROMPT, 8)
    assert says(told.model)[0] != says(base)[0]
    AutoModelForCausalLM.from_pretrained(told.model)


def test_what_is_no_adapter_is_not_merged(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    failed = optimize(tmp_path / "job", CONVERSATIONS, subject(base), {"type": "merge"}).failed
    assert (failed.code, failed.blame) == ("model_not_optimizable", "request")


# --- quantising -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [INT8, INT4], ids=["int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantised_model_is_served(tmp_path: Path, method: dict[str, Any], dtype: str) -> None:
    base = writer(tmp_path / "base", num_hidden_layers=1)
    served = {"device": "cpu", "dtype": dtype}
    told = optimize(tmp_path / "job", CONVERSATIONS, subject(base, settings=served), method)
    table = table_of(told)
    costs = table["costs"]
    assert costs["weights_bytes"]["after"] < costs["weights_bytes"]["before"]
    assert costs["disk_bytes"]["after"] < costs["disk_bytes"]["before"]
    assert all(costs[name]["after"] > 0 for name in costs if name.startswith("tokens_per"))
    assert (told.model / FILE).is_file()
    assert {path.suffix for path in told.model.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert stored_kinds(told.model) >= {"torch.int8" if method is INT8 else "torch.uint8"}
    engine = load(told.model, dtype=dtype)
    assert engine.detail["scheduler"] == "in_flight", engine.detail["why"]
    bodies = run(engine, [completion(n, PROMPT + " old" * n, max_tokens=8) for n in range(4)])
    assert all(body["usage"]["completion_tokens"] == 8 for body in bodies.values())


def test_eight_bits_say_nearly_the_same(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    quality = table_of(
        optimize(tmp_path / "job", CONVERSATIONS, subject(base), INT8, max_drop=0.02)
    )["quality"]["loss"]
    assert quality["after"] == pytest.approx(quality["before"], rel=0.02)
    assert quality["after"] != quality["before"]


def test_an_adapter_is_merged_before_it_is_quantised(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    lora = make_adapter(base, tmp_path / "lora", seed=3)
    told = optimize(tmp_path / "job", CONVERSATIONS, subject(base, adapter=str(lora)), INT8)
    quality = table_of(told)["quality"]["loss"]
    assert quality["after"] == pytest.approx(quality["before"], rel=0.05)
    layers = [m for m in load(told.model)._loaded.model.modules() if isinstance(m, QuantizedLinear)]
    assert len(layers) == 2 * 7


def test_a_classifier(tmp_path: Path) -> None:
    told = optimize(
        tmp_path / "job",
        TEXTS,
        subject(sorter(tmp_path / "base"), engine="classifier"),
        INT8,
        measured_as="text_classification",
        metric="accuracy",
        goes_up=True,
    )
    costs = table_of(told)["costs"]
    assert costs["rows_per_second"]["after"] > 0
    given = Load(model="tiny", engine="classifier", source=str(told.model), settings=FLOAT)
    engine = create_classifier(given, lambda fraction, detail: None)
    bodies = run(engine, [row(0, "/v1/classifications", {"input": ["a lazy dog", "old boats"]})])
    assert {answer["label"] for answer in bodies[0]["data"]} <= {"dull", "fine"}
    # What is before the first layer and after the last is as it was.
    assert engine.resident_bytes == costs["weights_bytes"]["after"]


def test_a_folder_whose_weights_do_not_fit(tmp_path: Path) -> None:
    told = optimize(tmp_path / "job", CONVERSATIONS, subject(writer(tmp_path / "base")), INT8)
    said = json.loads((told.model / FILE).read_text())
    said["layers"].pop(next(iter(said["layers"])))
    (told.model / FILE).write_text(json.dumps(said))
    with pytest.raises(Exception, match="do not fit"):
        load(told.model)


# --- pruning ----------------------------------------------------------------------------------


def test_the_smallest_weights_become_zero(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    method = {"type": "prune", "amount": 0.3, "structure": "unstructured"}
    table = table_of(optimize(tmp_path / "job", CONVERSATIONS, subject(base), method))
    assert table["detail"]["zeros"] == pytest.approx(0.3, abs=0.01)
    assert table["costs"]["weights_bytes"]["after"] == table["costs"]["weights_bytes"]["before"]
    before = AutoModelForCausalLM.from_pretrained(base).model.layers[0].mlp.up_proj.weight
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "job" / "result" / "model")
    pruned = after.model.layers[0].mlp.up_proj.weight
    gone = pruned == 0
    assert before[gone].abs().max() <= before[~gone].abs().min()
    assert torch.equal(before[~gone], pruned[~gone])


def test_channels_are_cut_out_of_every_layer(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    method = {"type": "prune", "amount": 0.5, "structure": "structured"}
    told = optimize(tmp_path / "job", CONVERSATIONS, subject(base), method)
    table = table_of(told)
    assert table["detail"]["channels"] == {"before": 64, "after": 32}
    assert table["costs"]["disk_bytes"]["after"] < table["costs"]["disk_bytes"]["before"]
    assert AutoConfig.from_pretrained(told.model).intermediate_size == 32
    plain = AutoModelForCausalLM.from_pretrained(told.model)
    assert weight_bytes_of(plain) < weight_bytes_of(AutoModelForCausalLM.from_pretrained(base))
    assert len(says(told.model)) == 4


def test_a_channel_without_effect_is_cut_first() -> None:
    torch.manual_seed(5)
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=32)
    model = GPT2LMHeadModel(config).eval()
    for block in model.transformer.h:
        with torch.no_grad():
            block.mlp.c_proj.weight[::2] = 0  # of 128 channels, every other one
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = model(ids).logits
        said = cut_channels(model, 0.5, lambda: None, "tiny")
        after = model(ids).logits
    assert said == {"channels": {"before": 128, "after": 64}}
    assert model.config.n_inner == 64
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


def test_the_layers_of_an_encoder_too(tmp_path: Path) -> None:
    values = {n: v for n, v in small().items() if n not in ("num_key_value_heads", "pad_token_id")}
    folder = make(tmp_path, BertForSequenceClassification, BertConfig(**values, pad_token_id=0))
    model = BertForSequenceClassification.from_pretrained(folder)
    assert cut_channels(model, 0.25, lambda: None, "tiny")["channels"]["after"] == 48
    model.save_pretrained(tmp_path / "cut")
    again = BertForSequenceClassification.from_pretrained(tmp_path / "cut")
    assert again.bert.encoder.layer[1].output.dense.in_features == 48


@pytest.mark.parametrize(("amount", "code"), [(0.01, "nothing_to_prune")])
def test_less_than_a_channel(amount: float, code: str) -> None:
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=32)
    with pytest.raises(RecipeError) as caught:
        cut_channels(GPT2LMHeadModel(config), amount, lambda: None, "tiny")
    assert (caught.value.code, caught.value.param) == (code, "method.amount")


def test_a_model_without_such_layers() -> None:
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(RecipeError, match="mamba") as caught:
        cut_channels(MambaForCausalLM(config), 0.5, lambda: None, "tiny")
    assert (caught.value.code, caught.value.blame) == ("model_not_optimizable", "request")


# --- the verdict ------------------------------------------------------------------------------


def test_a_model_that_is_too_much_worse_is_refused_with_its_table(tmp_path: Path) -> None:
    base = writer(tmp_path / "base")
    method = {"type": "prune", "amount": 0.9, "structure": "unstructured"}
    told = optimize(
        tmp_path / "job", CONVERSATIONS, subject(base), method, metric="exact", goes_up=True
    )
    assert told.finished.metrics["refused"] is None  # nothing was right before
    told = optimize(
        tmp_path / "again", CONVERSATIONS, subject(base), method, metric="loss", max_drop=0.0
    )
    metrics = told.finished.metrics
    quality = metrics["table"]["quality"]["loss"]
    assert (metrics["refused"] is None) == (quality["after"] <= quality["before"])
    report = (told.folder / "result" / "files" / "report.md").read_text()
    assert "size on disk, MiB" in report
    kept = json.loads((told.folder / "result" / "files" / "report.json").read_text())
    assert kept["quality"]["loss"] == quality
    assert {file.path for file in told.finished.files} == {"report.md", "report.json"}
