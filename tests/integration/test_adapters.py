"""Rows of several adapters, and of the base, in one microbatch of the text engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tests.integration.adapter_case import adapted, make_adapter, merged, merged_says
from tests.integration.tiny_models import (
    WORDS,
    body_of,
    chat,
    completion,
    finish,
    generated,
    load,
    make,
    run,
    small,
    texts,
)
from worker.engines.adapters import Adapters
from worker.engines.continuous import lane_of
from worker.engines.forward import Forward
from worker.engines.protocol import Row
from worker.engines.text import TextEngine

PROMPTS = ["the quick", "seven rivers carry old boats", "a", WORDS[:70], "dog", "to the sea"]
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**small())
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of different ranks, on different layers."""
    folder = tmp_path_factory.mktemp("tiny adapters")
    return [
        make_adapter(base, folder / "small", 1),
        make_adapter(base, folder / "wide", 2, rank=8, targets=ALL_LINEAR),
        make_adapter(base, folder / "head", 3, rank=2, targets=["down_proj", "lm_head"]),
        make_adapter(base, folder / "scaled", 4, rank=4, use_rslora=True),
    ]


@pytest.fixture(scope="module")
def engine(base: Path) -> TextEngine:
    return load(base, slots=8)


@pytest.fixture(scope="module")
def expected(base: Path, adapters: list[Path]) -> dict[tuple[int, int], str]:
    """What PEFT's merged weights say, by adapter (-1: the base) and prompt."""
    said = {}
    for number in range(-1, len(adapters)):
        model = merged(base, adapters[number]) if number >= 0 else None
        for place, prompt in enumerate(PROMPTS):
            if model is None:
                said[number, place] = generated(base, prompt, 10)
            else:
                said[number, place] = merged_says(model, prompt, 10)
    return said


def rows_of(adapters: list[Path]) -> list[tuple[int, int, Row]]:
    """(adapter, prompt, row) of every pair, adapters taking turns."""
    found: list[tuple[int, int, Row]] = []
    for place, prompt in enumerate(PROMPTS):
        for number in range(-1, len(adapters)):
            row = completion(len(found), prompt, max_tokens=10)
            found.append((number, place, adapted(row, adapters[number]) if number >= 0 else row))
    return found


def test_mixed_rows_say_what_merged_weights_say(
    engine: TextEngine, adapters: list[Path], expected: dict[tuple[int, int], str]
) -> None:
    assert engine.detail["scheduler"] == "in_flight"
    wanted = rows_of(adapters)
    bodies = run(engine, [row for _, _, row in wanted])
    assert len({expected[number, 3] for number in range(-1, len(adapters))}) == 5  # they do differ
    for index, (number, place, _) in enumerate(wanted):
        assert texts(bodies[index]) == [expected[number, place]], (number, place)
        assert bodies[index]["model"] == ("tiny" if number < 0 else adapters[number].name)
    fingerprints = {body["model"]: body["system_fingerprint"] for body in bodies.values()}
    assert len(set(fingerprints.values())) == 5
    again = body_of_one(engine, adapters[0])
    assert again["system_fingerprint"] == fingerprints[adapters[0].name]


def body_of_one(engine: TextEngine, adapter: Path) -> dict[str, Any]:
    return run(engine, [adapted(completion(0, "a", max_tokens=1), adapter)])[0]


def test_a_seeded_row_says_the_same_alone_and_beside_other_adapters(
    engine: TextEngine, adapters: list[Path]
) -> None:
    def seeded(index: int) -> Any:
        row = chat(index, "the quick", max_tokens=16, temperature=0.9, seed=7)
        return adapted(row, adapters[1])

    alone = run(engine, [seeded(0)])[0]["choices"]
    company = [
        adapted(completion(i, PROMPTS[i], max_tokens=20, temperature=1), adapters[i % 4])
        for i in range(1, 6)
    ]
    assert run(engine, [*company, seeded(0)])[0]["choices"] == alone


def test_static_microbatches_take_adapters_too(
    base: Path, adapters: list[Path], expected: dict[tuple[int, int], str]
) -> None:
    engine = load(base, slots=8, scheduler="static", max_adapters=2)
    wanted = rows_of(adapters)[:14]
    bodies = run(engine, [row for _, _, row in wanted])
    for index, (number, place, _) in enumerate(wanted):
        assert texts(bodies[index]) == [expected[number, place]], (number, place)


def test_a_beginning_is_shared_within_an_adapter_only(
    base: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefilled: list[int] = []
    original = Forward.prefill

    def counting(self: Forward, prompts: Any, *more: Any) -> Any:
        prefilled.append(sum(map(len, prompts)))
        return original(self, prompts, *more)

    engine = load(base, slots=8)
    monkeypatch.setattr(Forward, "prefill", counting)
    prompts = [WORDS[:100] + end for end in (" the fox", " seven", " boats to the sea", " dog")]
    chosen = [adapters[0], adapters[1]]
    rows = [
        adapted(completion(2 * i + j, prompt, max_tokens=6), adapter)
        for i, prompt in enumerate(prompts)
        for j, adapter in enumerate(chosen)
    ]
    bodies = run(engine, rows)
    models = [merged(base, adapter) for adapter in chosen]
    for i, prompt in enumerate(prompts):
        for j, model in enumerate(models):
            assert texts(bodies[2 * i + j]) == [merged_says(model, prompt, 6)]
    together = sum(body["usage"]["prompt_tokens"] for body in bodies.values())
    assert sum(prefilled) < together * 0.7


def test_adapters_beyond_the_most_make_room_and_leave_no_trace(
    base: Path, adapters: list[Path], expected: dict[tuple[int, int], str]
) -> None:
    engine = load(base, slots=4, max_adapters=1)
    held: Adapters = engine._adapters
    wanted = rows_of(adapters)
    bodies = run(engine, [row for _, _, row in wanted])
    for index, (number, place, _) in enumerate(wanted):
        assert texts(bodies[index]) == [expected[number, place]], (number, place)
    (last,) = list(held._loaded)
    held.unload(last)
    assert not held._hooks
    assert all(not module._forward_hooks for module in held._layers.values())


def test_cancelled_rows_free_their_adapter(base: Path, adapters: list[Path]) -> None:
    engine = load(base, slots=4, max_adapters=1)
    engine.submit(1, 1, adapted(completion(0, "the quick", max_tokens=100), adapters[0]))
    engine.submit(2, 1, adapted(completion(0, "the quick", max_tokens=2), adapters[1]))
    engine.submit(3, 1, adapted(completion(0, "the quick", max_tokens=2), adapters[2]))
    assert engine.step() == []
    assert (engine.active_rows, engine.waiting_rows) == (1, 2)
    engine.cancel(3, 1)
    engine.cancel(1, 1)
    results = finish(engine)
    assert [(result.shard, result.status) for result in results] == [(2, 200)]
    assert (engine.active_rows, engine.waiting_rows) == (0, 0)


def test_a_convolution_in_one_dimension_is_a_linear_layer(tmp_path: Path) -> None:
    """GPT-2 keeps its weights the other way round."""
    config = GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    base = make(tmp_path / "gpt2", GPT2LMHeadModel, config)
    targets = ["c_attn", "c_proj", "c_fc"]
    folder = make_adapter(base, tmp_path / "a", 5, targets=targets, fan_in_fan_out=True)
    rows = [completion(0, "the quick", max_tokens=8)]
    rows.append(adapted(completion(1, "the quick", max_tokens=8), folder))
    bodies = run(load(base), rows)
    assert texts(bodies[0]) == [generated(base, "the quick", 8)]
    assert texts(bodies[1]) == [merged_says(merged(base, folder), "the quick", 8)]


def test_choices_with_an_adapter_take_the_exact_lane(engine: TextEngine, base: Path) -> None:
    engine.submit(1, 1, adapted(completion(0, "a", max_tokens=1), base))
    (row,) = engine._rows
    engine.cancel(1, 1)
    assert [lane_of(choice) for choice in row.choices] == ["exact"]


# --- what is refused --------------------------------------------------------------------------


def refused(engine: TextEngine, folder: Path) -> str:
    """The error of a row with that adapter; a row of the base beside it is not disturbed."""
    rows = [adapted(completion(0, "a", max_tokens=2), folder), completion(1, "a", max_tokens=2)]
    bodies = run(engine, rows)
    assert "choices" in bodies[1]
    error = bodies[0]["error"]
    assert (error["code"], error["type"]) == ("adapter_unusable", "server_error")
    assert str(folder) not in error["message"]
    message: str = error["message"]
    return message


@pytest.fixture
def copy(adapters: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapters[0], tmp_path / "copied adapter"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"auto_mapping": {"parent_library": "os", "base_model_class": "x"}}, "auto_mapping"),
        ({"megatron_core": "os", "megatron_config": {"a": 1}}, "megatron_c"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type"),
        ({"something_new": "x"}, "something_new"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "alpha_pattern"),
        ({"lora_alpha": "16"}, "lora_alpha"),
    ],
)
def test_a_configuration_that_says_more_than_a_plain_lora_is_refused(
    engine: TextEngine, copy: Path, changed: dict[str, Any], said: str
) -> None:
    file = copy / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert said in refused(engine, copy)


def test_weights_that_do_not_fit_are_refused(engine: TextEngine, copy: Path) -> None:
    file = copy / "adapter_model.safetensors"
    good = load_file(file)
    name = next(key for key in good if key.endswith("lora_A.weight"))
    other = name.replace("lora_A", "lora_B")
    cases: list[tuple[dict[str, torch.Tensor], str]] = [
        ({**good, name: torch.ones(4, 31)}, "another size"),
        ({**good, name: torch.ones(3, 32)}, "do not fit each other"),
        ({**good, name: good[name] * torch.nan}, "not finite"),
        ({key: value for key, value in good.items() if key != other}, "half of the weights"),
        ({**good, "base_model.model.model.embed_tokens.weight": torch.ones(2)}, "no LoRA's"),
        ({}, "no weights"),
        ({k.replace("self_attn", "elsewhere"): v for k, v in good.items()}, "no linear layer"),
    ]
    for tensors, said in cases:
        save_file(tensors, file)
        assert said in refused(engine, copy)


def test_files_that_are_no_adapter_are_refused(engine: TextEngine, copy: Path) -> None:
    file = copy / "adapter_model.safetensors"
    weights = file.read_bytes()
    for broken in (b"\x80\x04pickled", (2**63).to_bytes(8, "little") + b"{}", weights[:-1], b""):
        file.write_bytes(broken)
        assert "cannot be read" in refused(engine, copy)
    file.unlink()
    assert "cannot be read" in refused(engine, copy)
    file.symlink_to(copy / "adapter_config.json")
    assert "no plain file" in refused(engine, copy)
    file.unlink()
    file.write_bytes(weights)
    assert body_of_one(engine, copy)["choices"]
    again = Path(shutil.copytree(copy, copy.with_name("again")))
    (again / "adapter_model.bin").write_bytes(b"\x80\x04pickled")
    assert "of a kind that is not read" in refused(engine, again)
    assert "no folder" in refused(engine, copy / "missing")


def test_the_base_is_untouched_by_its_company(
    engine: TextEngine, base: Path, adapters: list[Path]
) -> None:
    """Logits of base rows in one microbatch, with and without adapters on the other rows."""
    held = engine._adapters
    for adapter in adapters[:2]:
        if str(adapter) not in held._loaded:
            held.load(str(adapter))
    forward = Forward(engine._loaded.model, held)
    prompts = [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
    with torch.inference_mode():
        plain, _ = forward.prefill(prompts)
        mixed, _ = forward.prefill(prompts, None, ["", str(adapters[0]), str(adapters[1])])
    assert torch.equal(plain[0], mixed[0])
    assert not torch.allclose(plain[1:], mixed[1:])


def test_results_of_a_refused_row_are_answers(engine: TextEngine, tmp_path: Path) -> None:
    engine.submit(4, 2, adapted(completion(3, "a"), tmp_path / "missing", "ft:tiny:x"))
    assert engine.busy
    (result,) = engine.step()
    assert (result.shard, result.epoch, result.index, result.status) == (4, 2, 3, 500)
    assert "ft:tiny:x" in body_of(result)["error"]["message"]
    assert not engine.busy
