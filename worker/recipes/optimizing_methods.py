"""Ways to make a model smaller: an adapter merged, weights in whole numbers, weights left out.

Each takes a subject and writes a folder that its engine serves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from worker.engines.adapter_files import BadAdapter, read_adapter
from worker.engines.quantized import linear_layers, quantize, write_quantization
from worker.recipes.measuring_models import CLASSES
from worker.recipes.optimizing_channels import cut_channels
from worker.recipes.shape import RecipeError
from worker.recipes.text_models import save_model, stored_dtype
from worker.tuning.messages import Subject

Each = Callable[[], object]
"""Called now and then; may raise to end it."""


def make_smaller(
    subject: Subject, method: dict[str, Any], folder: Path, each: Each
) -> dict[str, Any]:
    """Writes the new model; returns what there is to say about it. Raises RecipeError."""
    model = load_whole(subject)
    if subject.adapter:
        merge(model, subject, each)
    kind, said = method["type"], {}
    if kind == "quantize":
        found = quantize(model, method["scheme"], each)
        if not found.layers:
            raise _unsuitable(subject, "none of its layers can be quantised")
        write_quantization(folder, found)
        said = {"layers": len(found.layers), "scheme": found.scheme}
    elif kind == "prune" and method["structure"] == "structured":
        said = cut_channels(model, method["amount"], each, subject.name)
    elif kind == "prune":
        said = zero_smallest(model, method["amount"], each)
    elif not subject.adapter:
        raise _unsuitable(subject, "it is no adapter: there is nothing to merge")
    tokenizer = AutoTokenizer.from_pretrained(subject.source, trust_remote_code=False)
    save_model(model, tokenizer, subject.source, folder)
    return said


def load_whole(subject: Subject) -> Any:
    """The subject without its adapter, on the CPU, in the dtype that its files are in."""
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(subject.source, trust_remote_code=False)
        return CLASSES[subject.engine](config).from_pretrained(
            subject.source,
            config=config,
            dtype=stored_dtype(subject.source),
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:
        message = f"'{subject.name}' can't be loaded: {type(error).__name__}"
        raise RecipeError("model_load_failed", message) from error


@torch.no_grad()
def merge(model: PreTrainedModel, subject: Subject, each: Each) -> None:
    """Adds the adapter's updates to the weights, in float32, before they are rounded once."""
    try:
        layers = read_adapter(Path(subject.adapter)).layers
        for name, (a, b) in layers.items():
            layer: Any = model.get_submodule(name)
            update = b @ a
            fitting = update.T if isinstance(layer, Conv1D) else update
            layer.weight.copy_((layer.weight.float() + fitting).to(layer.weight.dtype))
            each()
    except (BadAdapter, AttributeError, RuntimeError) as error:
        message = f"the adapter of '{subject.name}' does not fit its base: {error}"
        raise RecipeError("bad_base_adapter", message[:500], "request", "model") from error


@torch.no_grad()
def zero_smallest(model: PreTrainedModel, amount: float, each: Each) -> dict[str, Any]:
    """Sets the weights nearest to zero to zero, so many of each linear layer's."""
    zeros = whole = 0
    for layer in linear_layers(model).values():
        weights: Tensor = _weight_of(layer)
        count = int(amount * weights.numel())
        if count:
            sizes = weights.float().abs()
            smallest = sizes.flatten().kthvalue(count).values
            weights.masked_fill_(sizes <= smallest, 0)
        zeros += int((weights == 0).sum())
        whole += weights.numel()
        each()
    return {"zeros": round(zeros / max(1, whole), 6)}


def _weight_of(layer: nn.Module) -> Tensor:
    held: Any = layer
    weights: Tensor = held.weight
    return weights


def _unsuitable(subject: Subject, why: str) -> RecipeError:
    return RecipeError("model_not_optimizable", f"'{subject.name}': {why}", "request", "model")
