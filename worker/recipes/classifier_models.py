"""A base model with a head that classifies: loaded, trained whole or by LoRA, delivered whole.

Whatever was trained, what is written is a plain transformers directory: LoRA's updates are added to
copies of the weights they belong to, so a classifier is served alike however it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from worker.engines.classifying import longest_input, padding_token
from worker.recipes import base_weights
from worker.recipes.auto import takes_adapter
from worker.recipes.context import Context
from worker.recipes.shape import RecipeError
from worker.recipes.text_models import count_parameters, load_model, load_tokenizer, save_model

_ADAPTER = "default"


@dataclass(slots=True)
class ClassifierModel:
    """``model`` is in training as it is in memory: with LoRA's layers inside, if there are any."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    base: str
    labels: list[str]
    lora: bool
    padding: int
    longest: int
    """Tokens of a text that the model can read."""

    @property
    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def detail(self) -> dict[str, Any]:
        """For ``Started``."""
        return {
            **count_parameters(self.model),
            "adapter": "lora" if self.lora else "none",
            "labels": len(self.labels),
        }

    def padded(self, rows: Sequence[Sequence[int]], device: torch.device) -> dict[str, Tensor]:
        """Token ids of texts, filled up on the right: (texts, tokens) each."""
        longest = max(map(len, rows))
        ids = [[*row, *[self.padding] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }

    def save(self, folder: Path) -> None:
        """The servable model: safetensors, configuration, tokenizer."""
        weights = merged_weights(self.model)
        save_model(self.model, self.tokenizer, self.base, folder, weights=weights)


def load(context: Context, kind: Any, labels: Sequence[str]) -> ClassifierModel:
    """The plan's base with a head for ``labels``; ``kind`` is the auto class of transformers.

    A base that is a classifier of the same labels keeps its head. Raises RecipeError.
    """
    plan = context.plan
    if plan.base_adapter:
        message = f"'{plan.base_model}' is an adapter: classifiers are trained from whole models"
        raise RecipeError("unsupported_base", message, "request", "model")
    lora = takes_adapter(plan.recipe, plan.adapter, base_weights.count(plan.base))
    tokenizer = load_tokenizer(plan.base)
    model = _load_model(context, kind, list(labels), lora)
    padding = padding_token(model.config, tokenizer)
    model.config.pad_token_id = padding
    if lora:
        _add_lora(context, model)
    longest = longest_input(model.config, tokenizer)
    return ClassifierModel(model, tokenizer, plan.base, list(labels), lora, padding, longest)


def _load_model(context: Context, kind: Any, labels: list[str], lora: bool) -> Any:
    config = AutoConfig.from_pretrained(context.plan.base, trust_remote_code=False)
    if type(config) not in kind._model_mapping:
        message = f"'{context.plan.base_model}' is of a family that has no such classifier"
        raise RecipeError("unsupported_base", message, "request", "model")
    own = dict(config.id2label or {})
    same = [own[number] for number in sorted(own)] == labels
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = None
    model: Any = load_model(context, kind, frozen=lora, config=config, ignore_mismatched_sizes=True)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not _of_base(model, name):
            module.float()
            if not same:
                module.reset_parameters()
    return model


def _add_lora(context: Context, model: Any) -> None:
    """Beside every linear layer of the base, and the whole head."""
    from peft import LoraConfig, inject_adapter_in_model

    options = context.plan.lora
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and _of_base(model, name)
    ]
    alpha: Any = float(options.get("alpha", 32.0))  # PEFT says int, and takes any number
    config = LoraConfig(
        r=int(options.get("rank", 16)),
        lora_alpha=alpha,
        lora_dropout=float(options.get("dropout", 0.0)),
        target_modules=list(options.get("target_modules") or linear),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    except ValueError as error:
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        message = f"the base model has no such layers to adapt; it has: {known}"
        raise RecipeError(
            "bad_target_modules", message, "request", "lora.target_modules"
        ) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".lora_" in name or not _of_base(model, name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _of_base(model: Any, name: str) -> bool:
    return name.startswith(f"{model.base_model_prefix}.")


@torch.no_grad()
def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights by their names before LoRA, its updates added. The model stays as it is."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)
    }
    merged = {}
    for name, tensor in model.state_dict().items():
        owner, base, rest = name.rpartition(".base_layer.")
        if base and owner in layers:
            if rest == "weight":
                update = layers[owner].get_delta_weight(_ADAPTER)
                tensor = (tensor.float() + update.float()).to(tensor.dtype)  # noqa: PLW2901
            merged[f"{owner}.{rest}"] = tensor
        elif ".lora_" not in name:
            merged[name] = tensor
    return merged
