"""The text engine with adapters, in a process of its own, so that torch stays out of the
benchmark's.

    python -m bench.bare_adapters MODEL_DIRECTORY SCRATCH_DIRECTORY

answers each line of JSON on standard input, ``{"adapters": n, "rows": n, "new_tokens": n}``, with
``{"rows_per_second", "dtype"}``: rows that take turns among so many adapters, none for 0.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from bench.beside import serve
from bench.text_engine import CHAT, bodies
from worker.engines.adapter_files import CONFIG, WEIGHTS
from worker.engines.base import Engine
from worker.engines.protocol import Load, Row
from worker.engines.text import create

MOST_ADAPTERS = 8
RANK = 16
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapters(model: str, folder: Path) -> list[Path]:
    """Random adapters on every linear layer but the last, in PEFT's layout."""
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    layers = {
        name: layer for name, layer in shape.named_modules() if name.rpartition(".")[2] in LAYERS
    }
    made = []
    for number in range(MOST_ADAPTERS):
        target = folder / f"adapter-{number}"
        target.mkdir()
        chance = torch.Generator().manual_seed(number)
        tensors = {}
        for name, layer in layers.items():
            key = f"base_model.model.{name}.lora"
            a = torch.randn(RANK, layer.in_features, generator=chance) * 0.02
            b = torch.randn(layer.out_features, RANK, generator=chance) * 0.002
            tensors |= {f"{key}_A.weight": a, f"{key}_B.weight": b}
        save_file(tensors, target / WEIGHTS)
        said = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
        (target / CONFIG).write_text(json.dumps(said))
        made.append(target)
    return made


class Asked:
    """One engine, and adapters that are loaded when they are first used."""

    def __init__(self, model: str, folder: Path) -> None:
        self._adapters = write_adapters(model, folder)
        load = Load(model="m", engine="text", source=model, settings={})
        self._engine: Engine = create(load, lambda fraction, detail: None)
        for count in (0, MOST_ADAPTERS):
            self._seconds(count, rows=16, new_tokens=2)

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        seconds = self._seconds(asked["adapters"], asked["rows"], asked["new_tokens"])
        dtype = self._engine.detail["dtype"]
        return {"rows_per_second": asked["rows"] / seconds, "dtype": dtype}

    def _seconds(self, adapters: int, rows: int, new_tokens: int) -> float:
        began = time.perf_counter()
        for index, body in enumerate(bodies(rows)):
            said = json.dumps(body | {"max_tokens": new_tokens, "temperature": 0}).encode()
            folder = str(self._adapters[index % adapters]) if adapters else ""
            refused = self._engine.submit(
                1, 1, Row(index, CHAT, said, adapter=folder, adapter_name=folder)
            )
            assert refused is None, refused
        done = 0
        while self._engine.busy:
            results = self._engine.step()
            assert all(result.status == 200 for result in results)
            done += len(results)
        assert done == rows
        return time.perf_counter() - began


@cache
def _asked(model: str, folder: str) -> Asked:
    return Asked(model, Path(folder))


def answer(model: str, folder: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What one line asks for."""
    return _asked(model, folder).answer(asked)


if __name__ == "__main__":
    serve(partial(answer, sys.argv[1], sys.argv[2]))
