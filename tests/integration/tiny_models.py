"""Tiny random models and their tokenizer, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from worker.engines.base import Engine
from worker.engines.protocol import Load, Row, RowResult
from worker.engines.text import TextEngine, create

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
END = "<|end|>"
VOCABULARY = 400
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = (
    "the quick brown fox jumps over a lazy dog while seven rivers carry old boats to the sea; "
    "naïve café señor 日本語 テスト 🎉🚀 привет мир and so on until every word has been said twice"
)


def small(**more: Any) -> dict[str, Any]:
    """Config values that keep a transformer tiny."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        **more,
    }


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over ``WORDS``: any text comes back as it went in."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator([WORDS] * 4, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=trained, eos_token=END, pad_token=END)
    wrapped.chat_template = TEMPLATE
    return wrapped


def say(tokens: Any) -> str:
    """The text of generated ids, as the engine shows one that was cut at a limit."""
    return str(tokenizer().decode(tokens, skip_special_tokens=True)).removesuffix("\ufffd")


def generated(folder: Path, prompt: str, new_tokens: int) -> str:
    """What plain ``generate`` says of one row alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
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
    return say(out[0, ids.shape[1] :])


def save(folder: Path, model: PreTrainedModel) -> Path:
    """Writes the model and the tokenizer in the hub's layout."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def make(folder: Path, model_class: Any, config: Any) -> Path:
    """A random model of a class, the same each time."""
    torch.manual_seed(11)
    return save(folder, model_class(config))


def load(folder: Path, **settings: Any) -> TextEngine:
    settings = {
        "dtype": "float32",
        "device": "cpu",
        "slots": 4,
        "default_max_tokens": 20,
        **settings,
    }
    message = Load(model="tiny", engine="text", source=str(folder), settings=settings)
    return create(message, lambda fraction, detail: None)


def completion(index: int, prompt: str | list[str], **more: Any) -> Row:
    return row(index, COMPLETIONS, {"prompt": prompt, "temperature": 0, **more})


def chat(index: int, text: str, **more: Any) -> Row:
    return row(index, CHAT, {"messages": [{"role": "user", "content": text}], **more})


def row(index: int, endpoint: str, body: Mapping[str, Any]) -> Row:
    return Row(index, endpoint, json.dumps({"model": "tiny", **body}).encode())


def run(engine: Engine, rows: list[Row], shard: int = 1) -> dict[int, dict[str, Any]]:
    """Submits all rows, steps to the end and returns their bodies by index."""
    bodies = {}
    for given in rows:
        refused = engine.submit(shard, 1, given)
        if refused is not None:
            bodies[refused.index] = body_of(refused)
    bodies.update({result.index: body_of(result) for result in finish(engine)})
    return bodies


def finish(engine: Engine) -> list[RowResult]:
    results: list[RowResult] = []
    while engine.busy:
        results += engine.step()
    return results


def body_of(result: RowResult) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(result.body)
    return body


def texts(body: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in body["choices"]]
