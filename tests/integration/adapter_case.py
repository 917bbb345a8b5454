"""Adapters on tiny models, made with PEFT, and what PEFT itself says with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from tests.integration.tiny_models import say, tokenizer
from worker.engines.protocol import Row


def make_adapter(
    base: Path, folder: Path, seed: int, *, rank: int = 4, targets: Sequence[str] = (), **more: Any
) -> Path:
    """Random LoRA weights, strong enough to change what the model says."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(targets) or ["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
        **more,
    )
    adapted: Any = get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_" in name:
                weights.normal_(std=0.4)
    adapted.save_pretrained(folder)
    return folder


def merged(base: Path, adapter: Path) -> Any:
    """The base with the adapter folded into its weights, as PEFT does it."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()


def merged_says(model: Any, prompt: str, new_tokens: int) -> str:
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


def adapted(row: Row, folder: Path, name: str = "") -> Row:
    """The same row, run with the adapter."""
    return Row(
        row.index, row.endpoint, row.body, row.id, row.inputs, str(folder), name or folder.name
    )
