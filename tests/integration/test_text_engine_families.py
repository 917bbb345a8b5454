"""Which path each family takes; whichever it is, rows say what ``generate`` says of them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.integration.tiny_models import (
    VOCABULARY,
    body_of,
    completion,
    finish,
    load,
    make,
    run,
    say,
    small,
    texts,
    tokenizer,
)
from worker.engines.base import EngineFailed

PROMPTS = ["the quick brown fox", "seven", "a lazy dog while seven rivers carry", "old boats"]
LIMITS = [9, 14, 3, 11]
IDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
T5_IDS: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
FAMILIES: dict[str, tuple[Any, Any, str]] = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**small()), "in_flight"),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**small()), "in_flight"),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=256,
            initializer_range=0.3,
            **IDS,
        ),
        "in_flight",
    ),
    "opt": (
        OPTForCausalLM,
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            word_embed_proj_dim=32,
            init_std=0.3,
            pad_token_id=1,
            **IDS,
        ),
        "in_flight",
    ),
    "mistral_with_a_window": (
        MistralForCausalLM,
        MistralConfig(**small(sliding_window=8)),
        "static",
    ),
    "mistral_with_a_window_as_long_as_its_context": (
        MistralForCausalLM,
        MistralConfig(**small(sliding_window=256)),
        "in_flight",
    ),
    "mamba": (
        MambaForCausalLM,
        MambaConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, **IDS
        ),
        "static",
    ),
    "t5": (
        T5ForConditionalGeneration,
        T5Config(
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            initializer_factor=3.0,
            **T5_IDS,
        ),
        "static",
    ),
}


def alone(folder: Path, prompt: str, new_tokens: int, seq2seq: bool) -> str:
    auto: Any = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32)
    words = tokenizer()
    ids = words(prompt, return_tensors="pt").input_ids
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=words.eos_token_id,
        pad_token_id=0,
    )
    new = out[0, 1:] if seq2seq else out[0, ids.shape[1] :]
    return say(new)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_takes_its_path_and_says_what_generate_says(family: str, tmp_path: Path) -> None:
    model_class, config, path = FAMILIES[family]
    folder = make(tmp_path / family, model_class, config)
    engine = load(folder, slots=3)
    assert engine.detail["scheduler"] == path, engine.detail
    rows = [
        completion(i, prompt, max_tokens=limit)
        for i, (prompt, limit) in enumerate(zip(PROMPTS, LIMITS, strict=True))
    ]
    bodies = run(engine, rows)
    for i, (prompt, limit) in enumerate(zip(PROMPTS, LIMITS, strict=True)):
        assert texts(bodies[i]) == [alone(folder, prompt, limit, family == "t5")]


@pytest.fixture(scope="module")
def static_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**small())
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


def test_static_and_in_flight_agree_on_seeds_stops_and_penalties(static_folder: Path) -> None:
    rows = [
        completion(0, "the quick", max_tokens=20, temperature=1, seed=4, n=2),
        completion(1, "seven", max_tokens=20, frequency_penalty=1.5),
        completion(2, "old boats", max_tokens=20, temperature=0.7, top_p=0.8, seed=9, stop="a"),
    ]
    in_flight, static = (
        run(load(static_folder, scheduler=name), rows) for name in ("in_flight", "static")
    )
    for index in range(3):
        assert texts(in_flight[index]) == texts(static[index])
        assert in_flight[index]["usage"] == static[index]["usage"]


def test_cancelling_a_static_microbatch_ends_it(static_folder: Path) -> None:
    engine = load(static_folder, scheduler="static", slots=2)
    for index in range(3):
        engine.submit(1, 1, completion(index, "seven", max_tokens=100))
    engine.submit(2, 1, completion(0, "dog", max_tokens=5))
    for _ in range(3):
        engine.step()
    engine.cancel(1, 1)
    assert (engine.active_rows, engine.waiting_rows) == (0, 1)
    results = finish(engine)
    assert [result.shard for result in results] == [2]
    assert texts(body_of(results[0])) == [alone(static_folder, "dog", 5, False)]


def test_out_of_memory_in_a_static_microbatch_fails_no_row(
    static_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(static_folder, scheduler="static", slots=4)
    original = LlamaForCausalLM.forward
    sizes: list[int] = []

    def cramped(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        sizes.append(input_ids.shape[0])
        if input_ids.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", cramped)
    rows = [completion(i, p, max_tokens=6) for i, p in enumerate(PROMPTS)]
    bodies = run(engine, rows)
    assert sizes[0] == 4
    monkeypatch.undo()
    for i, prompt in enumerate(PROMPTS):
        assert texts(bodies[i]) == [alone(static_folder, prompt, 6, False)]


def test_a_scheduler_that_cannot_run_the_model_is_refused(tmp_path: Path) -> None:
    model_class, config, _ = FAMILIES["mistral_with_a_window"]
    folder = make(tmp_path / "windowed", model_class, config)
    with pytest.raises(EngineFailed, match="limited to 8 tokens") as failed:
        load(folder, scheduler="in_flight")
    assert failed.value.code == "bad_settings"
