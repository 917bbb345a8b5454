"""LoRA adapters by PEFT: where they go, and the folder that is delivered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from worker.engines.adapter_files import BadAdapter, read_adapter
from worker.recipes.shape import RecipeError
from worker.recipes.state import storable

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_DELIVERED = (
    "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias",
    "fan_in_fan_out", "modules_to_save", "inference_mode", "use_rslora", "rank_pattern",
    "alpha_pattern", "layers_to_transform", "layers_pattern", "init_lora_weights",
)  # fmt: skip
"""Of PEFT's configuration: what says which weights there are. Nothing that names code."""


def add_lora(
    model: PreTrainedModel,
    lora: dict[str, Any],
    *,
    task: str = "CAUSAL_LM",
    continued: str = "",
    whole: list[str] | None = None,
) -> Any:
    """The model with a trainable adapter, a ``PeftModel``.

    ``lora`` as ``shared.specs.fine_tuning.Lora``; ``continued`` is the folder of an adapter to go
    on with, whose sizes then count; ``whole`` names modules that are trained and saved besides,
    such as a classifier's head. Raises RecipeError.
    """
    if continued:
        return _continued(model, Path(continued))
    targets = lora.get("target_modules") or target_modules(model)
    if any(isinstance(module, nn.Embedding) for module in _named(model, targets)):
        # PEFT would adapt it in a form of its own, which no engine serves.
        message = "an embedding can't be adapted: name linear layers"
        raise RecipeError("bad_target_modules", message, "request", "lora.target_modules")
    alpha: Any = float(lora.get("alpha", 32.0))  # PEFT says int, and takes any number
    config = LoraConfig(
        task_type=task,
        r=int(lora.get("rank", 16)),
        lora_alpha=alpha,
        lora_dropout=float(lora.get("dropout", 0.0)),
        target_modules=targets,
        modules_to_save=whole,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        known = ", ".join(target_modules(model))
        message = f"the base model has no such layers to adapt; it has: {known}"
        raise RecipeError(
            "bad_target_modules", message, "request", "lora.target_modules"
        ) from error


def _named(model: PreTrainedModel, targets: list[str]) -> list[nn.Module]:
    """As PEFT understands them: whole names, or what names end with."""
    ends = tuple(f".{target}" for target in targets)
    return [m for name, m in model.named_modules() if f".{name}".endswith(ends)]


def target_modules(model: PreTrainedModel) -> list[str]:
    """The last part of the names of all linear layers of attention and MLP: every one but the
    output layer."""
    output = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not output
    }
    return sorted(names - {"lm_head", "score", "classifier", "qa_outputs"})


def save_adapter(model: Any, folder: Path, *, base_model: str) -> None:
    """PEFT's two files, as its ``from_pretrained`` and the text engine read them; the base is
    named as the tenant knows it."""
    config = model.peft_config["default"].to_dict()
    told = {name: _plain(config[name]) for name in _DELIVERED if name in config}
    told |= {"base_model_name_or_path": base_model, "inference_mode": True}
    told["init_lora_weights"] = True
    text = json.dumps(told, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(storable(weights), folder / WEIGHTS, metadata={"format": "pt"})


def _continued(model: PreTrainedModel, folder: Path) -> Any:
    """An adapter as it was delivered, trainable again; judged as engines judge it."""
    try:
        read_adapter(folder)
        told = json.loads((folder / CONFIG).read_bytes())
        known = {name: told[name] for name in _DELIVERED if name in told}
        config = LoraConfig(**(known | {"inference_mode": False}))
        adapted = get_peft_model(model, config)
        missing = set_peft_model_state_dict(adapted, load_file(folder / WEIGHTS))
    except (BadAdapter, OSError, TypeError, ValueError, RuntimeError) as error:
        message = f"the adapter to go on with can't be used: {error}"
        raise RecipeError("bad_base_adapter", message[:500]) from error
    if getattr(missing, "unexpected_keys", None):
        raise RecipeError("bad_base_adapter", "the adapter to go on with is of another model")
    return adapted


def _plain(value: Any) -> Any:
    """Sets in order, enumerations by value."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return getattr(value, "value", value)
