"""Packages of models made by hand, good and bad, without torch."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

from worker.upkeep.imports.inspection import Found, inspect
from worker.upkeep.imports.package import Package

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "vocab_size": 400,
}


def header_of(tensors: Mapping[str, Any]) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def weights(tensors: Mapping[str, Any] | None = None, data_bytes: int = 16) -> bytes:
    """A file of safetensors; by default of one tensor."""
    return header_of(tensors or {"a": tensor([2, 2], 0, 16)}) + bytes(data_bytes)


def lora(rank: int = 2, inputs: int = 4, outputs: int = 6) -> bytes:
    name, a, b = "base_model.model.layer.lora_{}.weight", 4 * rank * inputs, 4 * rank * outputs
    tensors = {
        name.format("A"): tensor([rank, inputs], 0, a),
        name.format("B"): tensor([outputs, rank], a, a + b),
    }
    return weights(tensors, a + b)


def text_model(**changed: Any) -> dict[str, bytes]:
    """Files of a text model; ``changed`` are members of its ``config.json``."""
    return {
        "config.json": json.dumps(CONFIG | changed).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": weights(),
    }


def adapter(**changed: Any) -> dict[str, bytes]:
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "megatron_core":
        "megatron.core", "auto_mapping": None, "base_model_name_or_path": "/home/somebody/base",
        "target_modules": ["layer"], "modules_to_save": None, "use_dora": False,
    }  # fmt: skip
    return {
        "adapter_config.json": json.dumps(config | changed).encode(),
        "adapter_model.safetensors": lora(),
    }


def zipped(files: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> io.BytesIO:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as package:
        for name, data in files.items():
            package.writestr(name, data)
    archive.seek(0)
    return archive


def look(archive: io.BytesIO, tmp_path: Any, base: Any = None, store: Any = None) -> Found:
    """Judges a package as an import does."""
    return inspect(Package(archive), tmp_path, base, store, lambda: False)
