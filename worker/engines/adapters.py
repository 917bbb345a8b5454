"""LoRA adapters on a loaded model: every row of a microbatch with its own, or with none.

A hook behind each adapted layer adds what the row's adapter makes of the layer's input. Rows
without an adapter are not touched, and without any adapter loaded there are no hooks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from worker.engines.adapter_files import AdapterWeights, BadAdapter, read_adapter
from worker.engines.adapter_plans import TierPlan, plan_tiers

log = structlog.get_logger()

_KEPT_STACKS = 4
_KEPT_PLANS = 4
_EXPERTS = ".experts."
"""Layers that see the tokens of several rows in one line."""

Stack = tuple[Tensor, Tensor]
"""A (adapters, inputs, rank) and B (adapters, rank, outputs) of one layer."""


class Tier:
    """Groups of rows on the model's device, with the weights of their adapters."""

    def __init__(self, plan: TierPlan, device: torch.device) -> None:
        self.keys = plan.keys
        self.height = plan.height
        self.taken = torch.tensor(plan.taken, device=device)
        padded = len(plan.places) < len(plan.taken)
        self.places = torch.tensor(plan.places, device=device) if padded else None
        self.rows = self.taken if self.places is None else self.taken[self.places]

    def add(self, stack: Stack, inputs: Tensor, output: Tensor) -> None:
        """Adds to ``output`` (rows, tokens, outputs) what ``inputs`` (rows, tokens, inputs) give,
        in place."""
        a, b = stack
        if len(self.keys) == 1 and self.rows.shape[0] == inputs.shape[0]:
            output.add_((inputs @ a[0]) @ b[0])
            return
        tokens = inputs.shape[1]
        taken = inputs[self.taken].reshape(len(self.keys), self.height * tokens, -1)
        made = torch.bmm(torch.bmm(taken, a), b).view(-1, tokens, output.shape[-1])
        if self.places is not None:
            made = made[self.places]
        output.index_add_(0, self.rows, made)


class Adapters:
    """The adapters that are loaded beside one model, by the folder that each came from."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._layers = dict(model.named_modules())
        self._device = device
        self._dtype = dtype
        self._loaded: dict[str, dict[str, Stack]] = {}
        self._sha256: dict[str, str] = {}
        self._hooks: dict[str, RemovableHandle] = {}
        self._stacks: dict[tuple[str, ...], dict[str, Stack | None]] = {}
        self._plans: dict[tuple[str, ...], list[Tier]] = {}
        self._now: list[Tier] = []
        self._rows = 0

    def load(self, folder: str) -> None:
        """Reads the adapter in ``folder``, which is its key from then on. Raises BadAdapter."""
        read = read_adapter(Path(folder))
        self._check(read)
        self._loaded[folder] = {
            name: (self._placed(a.T)[None], self._placed(b.T)[None])
            for name, (a, b) in read.layers.items()
        }
        self._sha256[folder] = read.sha256
        for name in read.layers:
            if name not in self._hooks:
                hook = self._hook(name)
                self._hooks[name] = self._layers[name].register_forward_hook(hook)
        log.info("adapter_loaded", layers=len(read.layers), resident=len(self._loaded))

    def unload(self, folder: str) -> None:
        """Forgets an adapter that no row needs any more."""
        del self._loaded[folder], self._sha256[folder]
        self._stacks = {keys: s for keys, s in self._stacks.items() if folder not in keys}
        self._plans = {keys: plan for keys, plan in self._plans.items() if folder not in keys}
        for name in list(self._hooks):
            if not any(name in layers for layers in self._loaded.values()):
                self._hooks.pop(name).remove()

    def fingerprint(self, folder: str, base: str) -> str:
        """Of the model that the loaded adapter and a base of fingerprint ``base`` make."""
        return f"fp_{hashlib.sha256(f'{base} {self._sha256[folder]}'.encode()).hexdigest()[:16]}"

    @contextmanager
    def serving(self, folders: Sequence[str]) -> Iterator[None]:
        """While it lasts, row i of every forward pass runs with the adapter ``folders[i]``, or
        with none where that is empty."""
        if not any(folders):
            yield
            return
        self._now, self._rows = self._plan(tuple(folders)), len(folders)
        try:
            yield
        finally:
            self._now = []

    def _plan(self, folders: tuple[str, ...]) -> list[Tier]:
        if folders not in self._plans:
            while len(self._plans) >= _KEPT_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[folders] = [Tier(plan, self._device) for plan in plan_tiers(folders)]
        return self._plans[folders]

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def add(layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            for tier in self._now:
                stack = self._stack(tier.keys, name)
                if stack is not None:
                    # Some models put rows and tokens in one dimension.
                    inputs = arguments[0].reshape(self._rows, -1, arguments[0].shape[-1])
                    tier.add(stack, inputs, output.view(self._rows, -1, output.shape[-1]))

        return add

    def _stack(self, keys: tuple[str, ...], name: str) -> Stack | None:
        """The layer's weights of these adapters, ranks padded with zeros; None where no adapter
        has the layer."""
        if len(keys) == 1:
            return self._loaded.get(keys[0], {}).get(name)
        stacks = self._stacks.get(keys)
        if stacks is None:
            while len(self._stacks) >= _KEPT_STACKS:
                del self._stacks[next(iter(self._stacks))]
            stacks = self._stacks[keys] = {}
        if name not in stacks:
            stacks[name] = self._stacked(keys, name)
        return stacks[name]

    def _stacked(self, keys: tuple[str, ...], name: str) -> Stack | None:
        # A static microbatch drags rows along that have ended, and whose adapters may be gone.
        owned = (self._loaded.get(key, {}).get(name) for key in keys)
        found = {place: stack for place, stack in enumerate(owned) if stack is not None}
        if not found:
            return None
        rank = max(a.shape[2] for a, _ in found.values())
        first_a, first_b = next(iter(found.values()))
        all_a = first_a.new_zeros((len(keys), first_a.shape[1], rank))
        all_b = first_b.new_zeros((len(keys), rank, first_b.shape[2]))
        for at, (a, b) in found.items():
            all_a[at, :, : a.shape[2]] = a[0]
            all_b[at, : b.shape[1]] = b[0]
        return all_a, all_b

    def _placed(self, weights: Tensor) -> Tensor:
        return weights.to(self._device, self._dtype).contiguous()

    def _check(self, read: AdapterWeights) -> None:
        for name, (a, b) in read.layers.items():
            layer = self._layers.get(name)
            if isinstance(layer, nn.Linear):
                shape = (layer.in_features, layer.out_features)
            elif isinstance(layer, Conv1D):
                shape = (layer.nx, layer.nf)
            else:
                raise BadAdapter(f"the model has no linear layer {name}")
            if shape != (a.shape[1], b.shape[0]):
                raise BadAdapter(f"its weights of {name} are of another size than the layer")
            if _EXPERTS in name:
                raise BadAdapter(f"{name} is an expert's, which rows share")
