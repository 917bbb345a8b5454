"""Base models for text: loading them for training, and writing what was made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from worker.recipes.context import Context
from worker.recipes.shape import RecipeError

_NAMES_CODE = ("auto_map", "custom_pipelines", "trust_remote_code", "_name_or_path")
"""Settings that name code, or a path of this machine: never delivered."""


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """With a padding token. Raises RecipeError ``base_model_unusable``."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except Exception as error:
        raise _unusable(error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(context: Context, auto_class: Any, *, frozen: bool, **more: Any) -> PreTrainedModel:
    """The base model on the training's device; never remote code, only safetensors.

    Weights that are trained are float32, whatever is computed in; a base that stays as it is
    (``frozen``) is held in ``context.dtype``. Raises RecipeError ``base_model_unusable``.
    """
    logging.disable_progress_bar()
    dtype = context.dtype if frozen else torch.float32
    try:
        model: Any = auto_class.from_pretrained(
            context.plan.base, dtype=dtype, use_safetensors=True, trust_remote_code=False, **more
        )
    except Exception as error:
        raise _unusable(error) from error
    model.to(context.device)
    if frozen:
        model.requires_grad_(False)
    loaded: PreTrainedModel = model
    return loaded


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: str,
    folder: Path,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """A transformers directory, in the dtype that the base is kept in. ``weights`` by the names of
    the class, where they are not what the model itself holds."""
    dtype = stored_dtype(base)
    cast: dict[int, torch.Tensor] = {}  # tied weights stay one tensor

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        return cast.setdefault(tensor.data_ptr(), tensor.detach().to("cpu", dtype))

    held = model.state_dict() if weights is None else weights
    state = {name: stored(tensor) for name, tensor in held.items()}
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    _rewrite(folder / "config.json", lambda config: config | {"dtype": _name(dtype)})
    for path in folder.glob("*.json"):
        if not path.name.endswith(".index.json"):
            _rewrite(path, without_code)


def stored_dtype(base: str) -> torch.dtype:
    """Of the base model's files; float32 when they do not say."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    dtype = getattr(config, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def without_code(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _NAMES_CODE}


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """For ``Started.detail``."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "parameters": sum(size for size, _ in sizes),
        "trainable": sum(size for size, trained in sizes if trained),
    }


def _rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if path.exists():
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict):
            path.write_text(json.dumps(change(config), indent=2) + "\n", encoding="utf-8")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _unusable(error: Exception) -> RecipeError:
    reason = f"{type(error).__name__}: {error}"[:500]
    return RecipeError("base_model_unusable", f"the base model cannot be loaded: {reason}")
