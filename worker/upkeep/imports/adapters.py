"""An adapter's weights against those of its base, by names and shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from shared.db.models import Model
from shared.storage.base import Store
from worker.tuning.data.example import Refused, shown
from worker.upkeep.imports.safetensors_files import Tensor, read_tensors

MISMATCH = "adapter_mismatch"
_KEY = re.compile(r"base_model\.model\.([A-Za-z0-9_.]+)\.lora_([AB])\.weight\Z", re.ASCII)
_OF_THE_BASE = ".base_layer.weight"
"""PEFT repeats the base's own embeddings beside an adapter on the output layer."""
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
_MATRIX = 2

Shapes = dict[str, tuple[int, ...]]


def layers_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int, int]]:
    """By the layer's name in the base: its inputs, its outputs, and the adapter's rank. Raises
    Refused for anything but a LoRA on linear layers."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith(_OF_THE_BASE):
            continue
        match = _KEY.match(name)
        if match is None or tensor.dtype not in _FLOATS or len(tensor.shape) != _MATRIX:
            raise Refused(MISMATCH, f"'{shown(name)}' is no LoRA's weight of a linear layer")
        halves.setdefault(match[1], {})[match[2]] = tensor
    if not halves:
        raise Refused(MISMATCH, "it has no weights")
    return {name: _layer(name, found) for name, found in halves.items()}


def _layer(name: str, found: Mapping[str, Tensor]) -> tuple[int, int, int]:
    if found.keys() != {"A", "B"}:
        raise Refused(MISMATCH, f"only half of the weights of {shown(name)} are there")
    (rank, inputs), (outputs, other) = found["A"].shape, found["B"].shape
    if rank != other or not rank:
        raise Refused(MISMATCH, f"the weights of {shown(name)} do not fit each other")
    return inputs, outputs, rank


def compare(layers: Mapping[str, tuple[int, int, int]], base: Shapes) -> None:
    """Raises Refused unless the base has every layer, of the right size."""
    for name, (inputs, outputs, _) in layers.items():
        # A base that was saved without its head has the names without their first part.
        shape = base.get(f"{name}.weight") or base.get(f"{name.partition('.')[2]}.weight")
        if shape is None:
            raise Refused(MISMATCH, f"the base model has no layer {shown(name)}")
        # GPT-2's layers keep their weights the other way round.
        if shape not in {(outputs, inputs), (inputs, outputs)}:
            message = f"{shown(name)} adapts {inputs} to {outputs} numbers, the base's is {shape}"
            raise Refused(MISMATCH, message)


def base_shapes(base: Model, store: Store) -> Shapes | None:
    """The shapes of the base's tensors, from its files in the store or in a folder of this machine;
    None when it has neither here, and only an engine can compare. Raises as the store does, and
    Refused for a base that can't be read."""
    if base.files:
        shapes: Shapes = {}
        for file in base.files:
            if file.path.endswith(".safetensors"):
                shapes |= _shapes(partial(_read, store, file.key), file.bytes)
        return shapes
    folder = Path(base.source)
    if not base.source or not folder.is_absolute() or not folder.is_dir():
        return None
    found: Shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= _shapes(partial(_read_local, path), path.stat().st_size)
    return found or None


def _shapes(read: Callable[[int, int], bytes], size: int) -> Shapes:
    tensors = read_tensors(read, size)
    return {name: tensor.shape for name, tensor in tensors.items()}


def _read(store: Store, key: str, start: int, end: int) -> bytes:
    return b"".join(store.read(key, start, end))


def _read_local(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)
