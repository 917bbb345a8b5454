"""What is refused of a model's package before anything of it is stored, and as what."""

from __future__ import annotations

import io
import json
import pickle
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.db.models import Model
from tests.unit.worker.imports.packages import (
    CONFIG,
    adapter,
    look,
    lora,
    tensor,
    text_model,
    weights,
    zipped,
)
from worker.tuning.data.example import Refused
from worker.upkeep.imports import examination
from worker.upkeep.imports.inspection import Rejected
from worker.upkeep.imports.package import LIMITS, Package

BASE = Model("writer", "text", "text", "", [], {}, "pressrun", 0)


@pytest.fixture(autouse=True)
def _no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused here must be refused before the sandbox looks at it."""
    monkeypatch.setattr("worker.upkeep.imports.inspection.examine", _unexamined)


def _unexamined(*_: Any, **__: Any) -> examination.Examined:
    return examination.Examined(looked=False)


def refusals(
    archive: io.BytesIO, tmp_path: Path, base: Model | None = None
) -> set[tuple[str, Any]]:
    """(code, what is named) of every problem."""
    try:
        look(archive, tmp_path, base)
    except Rejected as rejected:
        return {(problem.code, problem.param) for problem in rejected.problems}
    except Refused as refusal:
        return {(refusal.code, refusal.param)}
    return set()


def test_a_good_package_is_taken(tmp_path: Path) -> None:
    assert refusals(zipped(text_model()), tmp_path) == set()
    inside = {f"my model/{name}": data for name, data in text_model().items()}
    beside = {"my model/README.md": b"x", "my model/.gitattributes": b"x"}
    found = look(zipped(inside | beside), tmp_path / "2")
    assert sorted(found.rewritten.files) == ["config.json"]
    assert found.left_out == ["README.md"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pytorch_model.bin", "pickle_refused"),
        ("optimizer.pt", "pickle_refused"),
        ("model.ckpt", "pickle_refused"),
        ("a.pkl", "pickle_refused"),
        ("a.pth", "pickle_refused"),
        ("modeling_llama.py", "code_refused"),
        ("kernel.so", "code_refused"),
        ("flax_model.msgpack", "weights_format_refused"),
        ("tf_model.h5", "weights_format_refused"),
        ("model.onnx", "weights_format_refused"),
        ("model.gguf", "weights_format_refused"),
        ("weights.tar.gz", "nested_archive"),
        ("../config.json", "unsafe_name"),
        ("/etc/passwd", "unsafe_name"),
        ("a/../../b.json", "unsafe_name"),
        ("C:/config.json", "unsafe_name"),
        ("notes.txt", "unexpected_file"),
        ("consolidated.safetensors", "unexpected_file"),
        ("model-00001-of-00002.bin", "pickle_refused"),
    ],
)
def test_each_file_that_does_not_belong_is_named(name: str, code: str, tmp_path: Path) -> None:
    assert refusals(zipped(text_model() | {name: b"x"}), tmp_path) == {(code, name)}


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    bad = {"a.bin": b"x", "b.py": b"x", "../c.json": b"x"}
    assert len(refusals(zipped(text_model() | bad), tmp_path)) == 3


def test_links_duplicates_and_names_that_clash(tmp_path: Path) -> None:
    archive = zipped(text_model())
    link = zipfile.ZipInfo("merges.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as package:
        package.writestr(link, b"/etc/passwd")
    assert refusals(archive, tmp_path) == {("unsafe_member", "merges.txt")}
    clash = text_model() | {"CONFIG.json": b"{}"}
    assert refusals(zipped(clash), tmp_path) == {("case_clash", "CONFIG.json")}
    folder = text_model() | {"config.json/x.json": b"{}"}
    assert refusals(zipped(folder), tmp_path) == {("unsafe_name", "config.json/x.json")}
    twice = zipped(text_model())
    with zipfile.ZipFile(twice, "a") as package, pytest.warns(UserWarning, match="Duplicate"):
        package.writestr("config.json", b"{}")
    assert refusals(twice, tmp_path) == {("duplicate_member", "config.json")}


def test_sizes_are_bounded(tmp_path: Path) -> None:
    sparse = zipped({"model.safetensors": b"x"})
    listed = bytearray(sparse.getvalue())
    place = listed.index(b"PK\x01\x02") + 24  # the size that the list of files tells
    listed[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    limits = LIMITS.__class__(unpacked_bytes=2**30, members=10)
    with pytest.raises(Refused) as refused:
        Package(io.BytesIO(bytes(listed)), limits)
    assert refused.value.code == "archive_too_large"
    bomb = zipped(
        text_model() | {"model.safetensors": weights({"a": tensor([2**21], 0, 2**23)}, 2**23)},
        method=zipfile.ZIP_DEFLATED,
    )
    assert refusals(bomb, tmp_path) == {("archive_bomb", "model.safetensors")}
    with pytest.raises(Refused) as refused:
        Package(io.BytesIO(b"PK no archive"))
    assert refused.value.code == "invalid_archive"


def test_weights_are_what_they_say(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickled = pickle.dumps(SimpleNamespace(x=str(canary)), 4)
    for data, code in (
        (pickled, "pickle_refused"),
        (zipped({"data.pkl": pickled}).getvalue(), "nested_archive"),
        (weights() + zipped({"data.pkl": pickled}).getvalue(), "polyglot_refused"),
        (weights({"a": tensor([3], 0, 16)}), "safetensors_shape"),
    ):
        bad = text_model() | {"model.safetensors": data}
        assert refusals(zipped(bad), tmp_path) == {(code, "model.safetensors")}


def test_the_index_is_true(tmp_path: Path) -> None:
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    shards = text_model() | {one: weights(), two: weights({"b": tensor([2, 2], 0, 16)})}
    del shards["model.safetensors"]
    index = "model.safetensors.index.json"

    def with_map(**places: str) -> io.BytesIO:
        said = {"metadata": {"total_size": 32}, "weight_map": places}
        return zipped(shards | {index: json.dumps(said).encode()})

    assert refusals(with_map(a=one, b=two), tmp_path) == set()
    for wrong in ({"a": one, "b": one}, {"a": one}, {"a": one, "b": two, "c": two}, {"a": "x.bin"}):
        assert refusals(with_map(**wrong), tmp_path) == {("weights_index", index)}, wrong
    assert {code for code, _ in refusals(zipped(shards), tmp_path)} == {"weights_index"}


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"auto_map": {"AutoModel": "m.M"}}, "remote_code_refused", "auto_map"),
        ({"trust_remote_code": True}, "remote_code_refused", "trust_remote_code"),
        ({"text_config": {"auto_map": {"x": "y"}}}, "remote_code_refused", "auto_map"),
        ({"custom_pipeline": "x"}, "remote_code_refused", "custom_pipeline"),
        (
            {"_attn_implementation_internal": "kernels-community/x"},
            "loader_setting_refused",
            "_attn_implementation_internal",
        ),
        ({"attn_implementation": "a/b"}, "loader_setting_refused", "attn_implementation"),
        ({"quantization_config": {"quant_method": "x"}}, "quantization_unsupported", None),
        ({"hidden_size": "32"}, "invalid_setting", None),
        ({"hidden_act": "os.system/x"}, "invalid_setting", None),
        ({"architectures": ["MyForCausalLM"]}, "architecture_unsupported", "architectures"),
        ({"architectures": []}, "architecture_unsupported", "architectures"),
        ({"model_type": "gpt2"}, "architecture_unsupported", "model_type"),
    ],
)
def test_settings_that_are_refused(
    members: dict[str, Any], code: str, param: str | None, tmp_path: Path
) -> None:
    found = refusals(zipped(text_model(**members)), tmp_path)
    assert {found_code for found_code, _ in found} == {code}
    if param is not None and code == "architecture_unsupported":
        assert found == {(code, param)}


def test_settings_are_written_anew(tmp_path: Path) -> None:
    said = {
        "_name_or_path": "/home/somebody/model", "_commit_hash": "abc", "transformers_version": "5",
        "made_up": {"deep": [1]}, "rope_scaling": {"type": "linear", "factor": 2.0},
        "id2label": {"0": "good/bad"}, "torch_dtype": "bfloat16",
    }  # fmt: skip
    tokenizer = {
        "tokenizer_class": "LlamaTokenizerFast", "name_or_path": "somebody/model",
        "tokenizer_file": "/etc/passwd", "model_max_length": 1e30, "eos_token": "</s>",
        "added_tokens_decoder": {"0": {"content": "</s>", "special": True}},
    }  # fmt: skip
    files = text_model(**said) | {"tokenizer_config.json": json.dumps(tokenizer).encode()}
    found = look(zipped(files), tmp_path)
    kept = json.loads(found.rewritten.files["config.json"])
    assert kept == CONFIG | {
        name: said[name]
        for name in ("transformers_version", "rope_scaling", "id2label", "torch_dtype")
    }
    left = json.loads(found.rewritten.files["tokenizer_config.json"])
    assert "name_or_path" not in left
    assert "tokenizer_file" not in left
    assert found.report()["dropped_settings"] == [
        "config.json: _name_or_path", "config.json: _commit_hash", "config.json: made_up",
        "tokenizer_config.json: name_or_path", "tokenizer_config.json: tokenizer_file",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"tokenizer_class": "EvilTokenizer"}, "tokenizer_unsupported"),
        ({"tokenizer_class": "somebody/repo--tok.Tok"}, "tokenizer_unsupported"),
        ({"auto_map": {"AutoTokenizer": ["t.T", None]}}, "remote_code_refused"),
        ({"chat_template": "x" * 200_000}, "chat_template_refused"),
        ({"eos_token": {"content": "x", "__type": "os.system"}}, "invalid_setting"),
    ],
)
def test_tokenizers_that_are_refused(settings: dict[str, Any], code: str, tmp_path: Path) -> None:
    files = text_model() | {"tokenizer_config.json": json.dumps(settings).encode()}
    assert refusals(zipped(files), tmp_path) == {(code, "tokenizer_config.json")}


def test_a_model_has_its_files(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "model.safetensors"):
        lacking = text_model()
        del lacking[name]
        assert refusals(zipped(lacking), tmp_path) == {("missing_file", name)}
    assert refusals(zipped({"notes.json": b"{}"}), tmp_path) == {("not_a_model", None)}


# --- adapters -------------------------------------------------------------------------------


class OneFile:
    """A store with the base's weights."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, key: str, start: int = 0, end: int | None = None) -> list[bytes]:
        return [self.data[start:end]]


def base_with(layer: str, shape: list[int]) -> tuple[Model, OneFile]:
    from dataclasses import replace

    from shared.db.models import ModelFile

    size = 4 * shape[0] * shape[1]
    data = weights({layer: tensor(shape, 0, size)}, size)
    file = ModelFile("model.safetensors", "k", len(data), "0" * 64)
    return replace(BASE, files=(file,)), OneFile(data)


def test_an_adapter_fits_its_base(tmp_path: Path) -> None:
    base, store = base_with("layer.weight", [6, 4])
    found = look(zipped(adapter() | {"tokenizer.json": b"{}"}), tmp_path, base, store)
    assert found.compared
    assert found.left_out == ["tokenizer.json"]
    kept = json.loads(found.rewritten.files["adapter_config.json"])
    assert kept == {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}
    for layer, shape in (("other.weight", [6, 4]), ("layer.weight", [6, 5])):
        with pytest.raises(Refused) as refused:
            look(zipped(adapter()), tmp_path, *base_with(layer, shape))
        assert refused.value.code == "adapter_mismatch"
    elsewhere = look(zipped(adapter()), tmp_path, BASE, store)
    assert not elsewhere.compared  # a base of a hub: its engine will see


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"auto_mapping": {"parent_library": "os"}}, "loader_setting_refused"),
        ({"auto_mapping": {"base_model_class": "x"}}, "loader_setting_refused"),
        ({"megatron_core": "evil.module"}, "loader_setting_refused"),
        ({"megatron_config": {"x": 1}}, "loader_setting_refused"),
        ({"runtime_config": {"x": 1}}, "loader_setting_refused"),
        ({"use_dora": True}, "adapter_unsupported"),
        ({"modules_to_save": ["lm_head"]}, "adapter_unsupported"),
        ({"peft_type": "IA3"}, "adapter_unsupported"),
        ({"init_lora_weights": "pissa"}, "adapter_unsupported"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "adapter_unsupported"),
    ],
)
def test_adapters_that_are_refused(settings: dict[str, Any], code: str, tmp_path: Path) -> None:
    found = refusals(zipped(adapter(**settings)), tmp_path, BASE)
    assert found == {(code, "adapter_config.json")}


def test_an_adapter_names_a_base_and_a_model_does_not(tmp_path: Path) -> None:
    assert refusals(zipped(adapter()), tmp_path) == {("base_model_required", "base_model")}
    assert refusals(zipped(text_model()), tmp_path, BASE) == {("base_model_unused", "base_model")}
    odd = adapter() | {"adapter_model.safetensors": weights()}
    assert {code for code, _ in refusals(zipped(odd), tmp_path, BASE)} == {"adapter_mismatch"}
    half = adapter() | {"adapter_model.safetensors": lora(rank=0)}
    assert {code for code, _ in refusals(zipped(half), tmp_path, BASE)} == {"adapter_mismatch"}


# --- pipelines ------------------------------------------------------------------------------

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
}


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"_class_name": "MyPipeline"}, "architecture_unsupported"),
        ({"_class_name": ["my_pipeline", "MyPipeline"]}, "architecture_unsupported"),
        ({"custom_pipeline": "somebody/pipeline"}, "remote_code_refused"),
        ({"unet": ["my_unet", "MyUNet"]}, "architecture_unsupported"),
        ({"unet": ["diffusers", "AutoencoderKL"]}, "architecture_unsupported"),
        ({"unet": ["os", "system"]}, "architecture_unsupported"),
        ({"text_encoder": ["transformers", "AutoModel"]}, "architecture_unsupported"),
        ({"text_encoder": [None, None]}, "missing_file"),
        ({"requires_safety_checker": ["x"]}, "invalid_setting"),
    ],
)
def test_pipelines_that_are_refused(members: dict[str, Any], code: str, tmp_path: Path) -> None:
    files = {"model_index.json": json.dumps(INDEX | members).encode()}
    assert {found for found, _ in refusals(zipped(files), tmp_path)} == {code}
