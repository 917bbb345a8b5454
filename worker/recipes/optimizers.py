"""AdamW for each part that is trained: gradients over processes, clipping, rates, state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from worker.recipes.auto import Resolved
from worker.recipes.shape import Adam, RecipeError, Trained

_BUCKET = 32 * 1024 * 1024
"""Elements of gradients that travel together between processes."""


class Optimizers:
    """By name. Rates come with each step: there is no scheduler that could be out of step."""

    def __init__(self, trained: Trained, numbers: Resolved, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._max_norm = numbers.max_grad_norm
        self._names = _names(trained)
        self._parameters = trained.optimizers
        self._adam = {name: trained.adam.get(name, Adam()) for name in trained.optimizers}
        self._optimizers = {
            name: _adamw(parameters, self._adam[name], numbers)
            for name, parameters in trained.optimizers.items()
        }

    def step(self, name: str, rate: float) -> float:
        """One update; returns the norm of the gradients before clipping.

        Raises RecipeError ``training_diverged`` when that is no number.
        """
        optimizer, parameters = self._optimizers[name], self._parameters[name]
        if self._accelerator.num_processes > 1:
            self._add_up(parameters)
        scaler = self._accelerator.scaler
        if scaler is not None:
            scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(parameters, self._max_norm, foreach=True))
        if scaler is None and not math.isfinite(norm):
            raise RecipeError(
                "training_diverged",
                "the gradients are no longer finite: a smaller learning rate may help",
                "request",
                "learning_rate",
            )
        for group in optimizer.param_groups:
            group["lr"] = rate * self._adam[name].rate
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        self.clear()
        return norm

    def clear(self) -> None:
        """Drops all gradients, of every optimizer."""
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Moments and steps, by ``optimizer/parameter/name``."""
        found: dict[str, torch.Tensor] = {}
        for name, optimizer in self._optimizers.items():
            for parameter, state in optimizer.state.items():
                path = f"{name}/{self._names[parameter]}"
                found |= {f"{path}/{key}": value for key, value in state.items()}
        return found

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of ``tensors``. Raises RecipeError for moments that belong to nothing: a
        training that lost them would go on, and go elsewhere."""
        taken = 0
        for name, optimizer in self._optimizers.items():
            for parameter in self._parameters[name]:
                path = f"{name}/{self._names[parameter]}/"
                state = {
                    key.removeprefix(path): value
                    for key, value in _with_prefix(tensors, path, ("step", "exp_avg", "exp_avg_sq"))
                }
                taken += len(state)
                if state:
                    optimizer.state[parameter] = {
                        key: _placed(key, value, parameter, optimizer)
                        for key, value in state.items()
                    }

        if taken != len(tensors):
            raise RecipeError("checkpoint_mismatch", "the checkpoint has moments of other weights")

    def scaler_state(self) -> dict[str, Any]:
        scaler = self._accelerator.scaler
        return dict(scaler.state_dict()) if scaler is not None else {}

    def restore_scaler(self, state: dict[str, Any]) -> None:
        if state and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state)

    def _add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients become their mean over all processes."""
        for bucket in _buckets(parameters):
            gradients = [
                p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket
            ]  # what one process did not use, another may have
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            flat = self._accelerator.reduce(flat, reduction="mean")
            at = 0
            for parameter, gradient in zip(bucket, gradients, strict=True):
                parameter.grad = flat[at : at + gradient.numel()].view_as(parameter)
                at += gradient.numel()


def _adamw(parameters: Sequence[nn.Parameter], adam: Adam, numbers: Resolved) -> torch.optim.AdamW:
    """Decay is for matrices: biases and norms are left alone."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": numbers.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=numbers.learning_rate,
        betas=adam.betas,
        eps=adam.eps,
        fused=all(p.device.type in ("cpu", "cuda") for p in parameters),
    )


def _names(trained: Trained) -> dict[torch.Tensor, str]:
    names: dict[torch.Tensor, str] = {}
    for module_name, module in trained.modules.items():
        for name, parameter in module.named_parameters():
            names.setdefault(parameter, f"{module_name}.{name}")
    return names


def _with_prefix(
    tensors: Mapping[str, torch.Tensor], path: str, keys: Iterable[str]
) -> list[tuple[str, torch.Tensor]]:
    return [(path + key, tensors[path + key]) for key in keys if path + key in tensors]


def _placed(
    key: str, value: torch.Tensor, parameter: nn.Parameter, optimizer: torch.optim.Optimizer
) -> torch.Tensor:
    """Counters stay on the CPU unless the fused update wants them beside the parameter."""
    if key == "step":
        fused = bool(optimizer.param_groups[0].get("fused"))
        return value.to(parameter.device if fused else "cpu", torch.float32)
    return value.to(parameter.device, parameter.dtype)


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """In order, alike in dtype, each of a bounded size."""
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if not buckets or room < parameter.numel() or buckets[-1][0].dtype != parameter.dtype:
            buckets.append([])
            room = _BUCKET
        buckets[-1].append(parameter)
        room -= parameter.numel()
    return buckets
