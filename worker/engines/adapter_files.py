"""Adapter folders: LoRA weights as PEFT lays them out, judged before anything of them is used.

PEFT itself is not asked: its configurations may name modules to import.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SUFFIXES = (".safetensors", ".json", ".txt", ".md", ".model", ".jinja")
MOST_FILES = 200
MOST_CONFIG_BYTES = 2**20

_ANYTHING = frozenset(
    {
        "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "task_type",
        "base_model_name_or_path", "revision", "inference_mode", "fan_in_fan_out", "peft_version",
        "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora",
        "qalora_group_size",
    }
)  # fmt: skip
"""Settings that only say which weights there are, and how they are scaled."""
_ONLY: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "megatron_core": ("megatron.core", None),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
_PATTERNS = frozenset({"rank_pattern", "alpha_pattern"})
_NAME = re.compile(r"\^?[A-Za-z0-9_.]+\Z", re.ASCII)
_KEY = re.compile(r"base_model\.model\.([A-Za-z0-9_.]+)\.lora_([AB])\.weight\Z", re.ASCII)
_OF_THE_BASE = ".base_layer.weight"
"""PEFT repeats the base's own embeddings beside an adapter on the output layer."""


class BadAdapter(Exception):
    """The folder holds no adapter that this engine can run; says why."""


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """One adapter, on the CPU."""

    layers: dict[str, tuple[Tensor, Tensor]]
    """By the layer's name in the base model: A (rank, inputs), and B (outputs, rank) times its
    scale."""
    sha256: str
    """Of weights and configuration."""


def read_adapter(folder: Path) -> AdapterWeights:
    """Reads a folder that PEFT has written. Raises BadAdapter."""
    check_folder(folder)
    config_bytes = _read(folder / CONFIG, MOST_CONFIG_BYTES)
    try:
        config = json.loads(config_bytes)
    except (ValueError, RecursionError):
        raise BadAdapter(f"{CONFIG} is no JSON") from None
    check_config(config)
    weight_bytes = _read(folder / WEIGHTS, None)
    try:
        tensors = load_safetensors(weight_bytes)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise BadAdapter(f"{WEIGHTS} cannot be read: {type(error).__name__}") from None
    digest = hashlib.sha256(config_bytes + b"\0" + weight_bytes).hexdigest()
    return AdapterWeights(_layers(tensors, config), digest)


def check_folder(folder: Path) -> None:
    """Raises BadAdapter unless the folder holds plain files of known kinds and nothing else."""
    try:
        found = list(folder.iterdir())
    except OSError as error:
        raise BadAdapter(f"there is no folder of it: {type(error).__name__}") from None
    if len(found) > MOST_FILES:
        raise BadAdapter(f"it has {len(found)} files")
    for path in found:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BadAdapter(f"{path.name!r} is no plain file")
        if not path.name.endswith(SUFFIXES):
            raise BadAdapter(f"{path.name!r} is of a kind that is not read")


def check_config(config: Any) -> None:
    """Raises BadAdapter for anything but a plain LoRA. What is not known here must say nothing:
    null, false or empty."""
    if not isinstance(config, dict):
        raise BadAdapter("its configuration is not an object")
    for name, value in config.items():
        if name in _PATTERNS and not (
            isinstance(value or {}, dict) and are_plain_names(value or {})
        ):
            # An expression of somebody else's could keep the engine busy for ever.
            raise BadAdapter(f"its {name} is not made of plain names")
        if name in _ANYTHING or value in _ONLY.get(name, ()) or not value:
            continue
        raise BadAdapter(f"its configuration says {name!r}, which this engine does not do")


def are_plain_names(value: Any) -> bool:
    """Whether it is a list or an object of names of layers, and no regular expressions."""
    if not isinstance(value, list | dict):
        return False
    return all(isinstance(name, str) and _NAME.match(name) for name in value)


def _read(path: Path, most: int | None) -> bytes:
    try:
        if most is not None and path.stat().st_size > most:
            raise BadAdapter(f"{path.name} is too large")
        return path.read_bytes()
    except OSError as error:
        raise BadAdapter(f"{path.name} cannot be read: {type(error).__name__}") from None


def _layers(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.endswith(_OF_THE_BASE):
            continue
        match = _KEY.match(key)
        if match is None:
            raise BadAdapter(f"it has the weights {key[:200]!r}, which are no LoRA's on a layer")
        halves.setdefault(match[1], {})[match[2]] = tensor
    if not halves:
        raise BadAdapter("it has no weights")
    return {name: _layer(name, found, config) for name, found in halves.items()}


def _layer(
    name: str, found: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    try:
        a, b = found["A"], found["B"]
    except KeyError:
        raise BadAdapter(f"only half of the weights of {name} are there") from None
    fits = a.dim() == b.dim() == 2 and a.shape[0] == b.shape[1] > 0  # noqa: PLR2004 - a matrix
    if not (fits and a.is_floating_point() and b.is_floating_point()):
        raise BadAdapter(f"the weights of {name} do not fit each other")
    scaled = b.float() * _scale(name, a.shape[0], config)
    if not (torch.isfinite(scaled).all() and torch.isfinite(a).all()):
        raise BadAdapter(f"the weights of {name} are not finite")
    return a.float(), scaled


def _scale(name: str, rank: int, config: Mapping[str, Any]) -> float:
    alpha = config.get("lora_alpha", 8)
    for pattern, value in dict(config.get("alpha_pattern") or {}).items():
        if name == pattern.removeprefix("^") or name.endswith(f".{pattern}"):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise BadAdapter("its lora_alpha is not a number")
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
