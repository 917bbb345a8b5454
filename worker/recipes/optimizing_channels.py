"""Cutting channels out of MLPs: the same number in every layer, so that the configuration stays one
that transformers knows, and the model is really smaller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from worker.recipes.shape import RecipeError

MULTIPLE = 8
"""Widths that processors like."""


@dataclass(frozen=True, slots=True)
class Family:
    """What the layers of an MLP are called within the module that holds them."""

    into: tuple[str, ...]
    """Whose outputs are the channels: one layer, or one and its gate."""
    out: str
    width: str
    """The member of the configuration that says how many channels there are."""


FAMILIES = (
    Family(("gate_proj", "up_proj"), "down_proj", "intermediate_size"),
    Family(("c_fc",), "c_proj", "n_inner"),
    Family(("intermediate.dense",), "output.dense", "intermediate_size"),
    Family(("lin1",), "lin2", "hidden_dim"),
    Family(("dense_h_to_4h",), "dense_4h_to_h", "intermediate_size"),
    Family(("fc1",), "fc2", "intermediate_size"),
    Family(("fc1",), "fc2", "ffn_dim"),
)
"""Llama and those that are built like it; GPT-2; BERT; DistilBERT; GPT-NeoX; Phi; OPT."""


@torch.no_grad()
def cut_channels(
    model: PreTrainedModel, amount: float, each: Callable[[], object], name: str
) -> dict[str, Any]:
    """Leaves out the weakest channels of every MLP: those whose weights, going in and coming out,
    have the smallest product of norms. Raises RecipeError for a model that is built otherwise."""
    family, blocks = _find(model, name)
    width = _outputs(blocks[0].get_submodule(family.into[0]))
    keep = max(MULTIPLE, round(width * (1 - amount) / MULTIPLE) * MULTIPLE)
    if keep >= width:
        message = f"{amount:g} of {width} channels is less than {MULTIPLE}"
        raise RecipeError("nothing_to_prune", message, "request", "method.amount")
    for block in blocks:
        into = [block.get_submodule(part) for part in family.into]
        out = block.get_submodule(family.out)
        strength = _columns(out).norm(dim=0)
        for layer in into:
            strength = strength * _columns(layer).norm(dim=1)
        kept = strength.topk(keep).indices.sort().values
        for layer in into:
            _keep_outputs(layer, kept)
        _keep_inputs(out, kept)
        each()
    setattr(model.config, family.width, keep)
    return {"channels": {"before": width, "after": keep}}


def _find(model: PreTrainedModel, name: str) -> tuple[Family, list[nn.Module]]:
    for family in FAMILIES:
        blocks = [module for module in model.modules() if _fits(module, family)]
        widths = {_outputs(block.get_submodule(family.into[0])) for block in blocks}
        if len(widths) == 1 and hasattr(model.config, family.width):
            return family, blocks
    message = f"the layers of '{name}' ({model.config.model_type}) can't be cut; set weights to "
    message += "zero instead: structure 'unstructured'"
    raise RecipeError("model_not_optimizable", message, "request", "method.structure")


def _fits(module: nn.Module, family: Family) -> bool:
    try:
        layers = [module.get_submodule(part) for part in (*family.into, family.out)]
    except AttributeError:
        return False
    if not all(isinstance(layer, nn.Linear | Conv1D) for layer in layers):
        return False
    widths = {_outputs(layer) for layer in layers[:-1]} | {_columns(layers[-1]).shape[1]}
    return len(widths) == 1


def _columns(layer: nn.Module) -> Tensor:
    """(outputs, inputs), in float32."""
    held: Any = layer
    weights: Tensor = held.weight.detach().float()
    return weights.T if isinstance(layer, Conv1D) else weights


def _outputs(layer: nn.Module) -> int:
    return int(_columns(layer).shape[0])


def _keep_outputs(layer: Any, kept: Tensor) -> None:
    side = 1 if isinstance(layer, Conv1D) else 0
    layer.weight = nn.Parameter(layer.weight.detach().index_select(side, kept).contiguous())
    setattr(layer, "nf" if isinstance(layer, Conv1D) else "out_features", len(kept))
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept])


def _keep_inputs(layer: Any, kept: Tensor) -> None:
    side = 0 if isinstance(layer, Conv1D) else 1
    layer.weight = nn.Parameter(layer.weight.detach().index_select(side, kept).contiguous())
    setattr(layer, "nx" if isinstance(layer, Conv1D) else "in_features", len(kept))
