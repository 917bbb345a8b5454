"""Supervised fine-tuning as its documentation writes it, on transformers' Trainer and PEFT.

    python -m bench.bare_training TEXT_MODEL_DIRECTORY ROWS.jsonl

answers ``{"batch", "steps", "warm", "rate", "lora", "precision"}`` with steps a second, the first
``warm`` steps left out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.beside import serve


def answer(base: str, rows: str, asked: dict[str, Any]) -> float:
    """What one line asks for."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    lines = Path(rows).read_text(encoding="utf-8").splitlines()
    examples = [_tokens(tokenizer, json.loads(line)["messages"]) for line in lines]
    clock = _clock(asked["warm"])
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=asked["batch"],
            max_steps=asked["steps"],
            learning_rate=asked["rate"],
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            bf16=asked["precision"] == "bf16",
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        Trainer(
            model=_model(base, asked),
            args=arguments,
            train_dataset=examples,  # type: ignore[arg-type]  # a list will do
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
            callbacks=[clock],
        ).train()
    return float(clock.steps_a_second)


def _model(base: str, asked: dict[str, Any]) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if asked["precision"] == "bf16" else torch.float32
    lora = asked["lora"]
    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=int(lora["alpha"]),
        lora_dropout=lora["dropout"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), config)


def _tokens(tokenizer: Any, messages: list[dict[str, str]]) -> dict[str, list[int]]:
    """The loss is on the last answer."""
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    asked = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    before = len(tokenizer(asked, add_special_tokens=False)["input_ids"])
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [-100] * before + ids[before:],
    }


def _clock(warm: int) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]  # has no types
        def __init__(self) -> None:
            self.ended: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ended.append(time.perf_counter())

        @property
        def steps_a_second(self) -> float:
            counted = self.ended[warm - 1 :]
            return (len(counted) - 1) / (counted[-1] - counted[0])

    return Clock()


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as our trainings have it
    serve(partial(answer, sys.argv[1], sys.argv[2]))
