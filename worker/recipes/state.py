"""What a training goes on from: tensors by name, and a few numbers.

Weights that nothing trains are not in it: the base model has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import nn

from worker.recipes.shape import RecipeError, Trained


class Progress(msgspec.Struct, kw_only=True):
    """Everything of ``state.json``: where a training is, and how it went."""

    fingerprint: str = ""
    """Of plan and data: another training's checkpoint is refused."""
    step: int = 0
    """Optimizer steps that are done."""
    ended: bool = False
    """No step is to follow, though there may be some left: it stopped early."""
    tokens: int = 0
    examples: int = 0
    seconds: float = 0.0
    """Of training, over all attempts."""
    evaluated: dict[str, float] = {}
    """The newest evaluation."""
    evaluated_step: int = -1
    newest: dict[str, float] = {}
    """Numbers of the newest step."""
    best_value: float | None = None
    best_step: int = 0
    stale: int = 0
    """Evaluations since the best one."""
    before: dict[str, Any] | None = None
    """The report before the first step; None: not made yet."""
    scaler: dict[str, Any] = {}
    sections: dict[str, str] = {}


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without numbers that JSON has no word for: they would be read as null, which is none."""
    return {
        name: value
        for name, value in values.items()
        if not isinstance(value, float) or math.isfinite(value)
    }


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    """Parameters that are trained, buffers, and modules that are kept whole. Not copies."""
    found: dict[str, torch.Tensor] = {}
    for name, module in trained.modules.items():
        for key, parameter in module.named_parameters():
            if parameter.requires_grad:
                found[f"weights/{name}/{key}"] = parameter.detach()
        for key, buffer in buffers(module).items():
            found[f"buffers/{name}/{key}"] = buffer
    for name, module in trained.kept.items():
        for key, tensor in module.state_dict().items():
            found[f"kept/{name}/{key}"] = tensor.detach()
    return found


def buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """The persistent ones: running statistics, and what else a module saves."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    state = module.state_dict(keep_vars=True)
    return {
        name: tensor.detach()
        for name, tensor in state.items()
        if name not in parameters and isinstance(tensor, torch.Tensor)
    }


@torch.no_grad()
def restore_weights(trained: Trained, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of ``weights``, in place. Raises RecipeError ``checkpoint_mismatch``."""
    there = weights(trained)
    given = {name for name in tensors if name.split("/", 1)[0] in ("weights", "buffers", "kept")}
    if given != set(there):
        odd = sorted(given.symmetric_difference(there))
        raise RecipeError("checkpoint_mismatch", f"the checkpoint does not fit: {odd[:3]}")
    for name, tensor in there.items():
        if tensor.shape != tensors[name].shape:
            raise RecipeError("checkpoint_mismatch", f"{name} has another shape in the checkpoint")
        tensor.copy_(tensors[name])


def storable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the CPU and apart from one another, as safetensors wants them."""
    seen: set[int] = set()
    apart: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        copied = tensor.detach().cpu().contiguous()
        if copied.numel() and copied.data_ptr() in seen:
            copied = copied.clone()
        seen.add(copied.data_ptr())
        apart[name] = copied
    return apart
