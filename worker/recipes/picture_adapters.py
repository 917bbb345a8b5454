"""LoRA on a text-to-image model, saved as diffusers' ``load_lora_weights`` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from worker.recipes.picture_models import PictureModel
from worker.recipes.shape import RecipeError

WEIGHTS = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_NAME = "default"


def add_adapter(model: PictureModel, lora: dict[str, Any]) -> dict[str, nn.Module]:
    """New, and at first without effect; on the denoiser's attention, or wherever
    ``target_modules`` says, text encoders included. Returns the parts that have it now.

    Raises RecipeError ``invalid_target_modules``.
    """
    from peft import LoraConfig

    given = lora.get("target_modules")
    wanted = list(given or ATTENTION)
    parts = model.modules() if given else {model.denoiser_name: model.denoiser}
    adapted: dict[str, nn.Module] = {}
    found: set[str] = set()
    for name, part in parts.items():
        here = [target for target in wanted if _has(part, target)]
        if here:
            part.add_adapter(
                LoraConfig(
                    r=lora.get("rank", 16),
                    lora_alpha=lora.get("alpha", 32.0),
                    lora_dropout=lora.get("dropout", 0.0),
                    target_modules=here,
                ),
                adapter_name=_NAME,
            )
            adapted[name] = part
            found.update(here)
    missing = [target for target in wanted if target not in found]
    if missing:
        raise RecipeError(
            "invalid_target_modules",
            f"the model has no linear layer named {', '.join(missing)}",
            "request",
            "lora.target_modules",
        )
    return _trainable(adapted)


def load_adapter(model: PictureModel, folder: Path) -> dict[str, nn.Module]:
    """An earlier one, to go on with. Returns the parts that have it."""
    try:
        model.pipeline.load_lora_weights(
            str(folder), weight_name=WEIGHTS, adapter_name=_NAME, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(
            "unsuitable_base",
            f"the adapter does not fit its base model: {type(error).__name__}",
            "request",
            "model",
        ) from error
    parts = model.modules()
    return _trainable({n: p for n, p in parts.items() if getattr(p, "peft_config", None)})


def save_adapter(model: PictureModel, adapted: dict[str, nn.Module], folder: Path) -> None:
    """One file, with rank and alpha in its header."""
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    layers = {}
    for name, part in adapted.items():
        state = get_peft_model_state_dict(part, adapter_name=_NAME)
        if name != "transformer":
            state = convert_state_dict_to_diffusers(state)
        layers[f"{name}_lora_layers"] = {key: value.cpu() for key, value in state.items()}
    model.pipeline.save_lora_weights(
        folder, safe_serialization=True, **layers, **_collate_lora_metadata(adapted)
    )


def _has(part: nn.Module, target: str) -> bool:
    return any(
        isinstance(module, nn.Linear) and (name == target or name.endswith(f".{target}"))
        for name, module in part.named_modules()
    )


def _trainable(adapted: dict[str, nn.Module]) -> dict[str, nn.Module]:
    for part in adapted.values():
        for name, parameter in part.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_(True)
                parameter.data = parameter.data.to(torch.float32)
    return adapted
