"""From token states to one vector, as a model's sentence-transformers files say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.utils.hub import cached_file

from worker.engines.base import EngineFailed
from worker.engines.loading import LoadedModel

Pooling = Literal["mean", "cls", "max", "lasttoken"]

_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
}
_UNKNOWN_CONTEXT = 512


@dataclass(frozen=True, slots=True)
class Shape:
    """How token states become a vector."""

    pooling: Pooling
    normalize: bool
    max_tokens: int
    dimensions: int


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """(rows, tokens, size) and (rows, tokens) to (rows, size); padding is on the right."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "lasttoken":
        return states[torch.arange(states.shape[0], device=states.device), mask.sum(1) - 1]
    weights = mask[:, :, None].to(states.dtype)
    if pooling == "max":
        return states.masked_fill(weights == 0, -torch.inf).amax(dim=1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def read_shape(source: str, loaded: LoadedModel, limit: int | None) -> Shape:
    """What sentence-transformers' files say; mean pooling and normalisation without them.

    Raises EngineFailed ``model_load_failed`` for a pooling that is not implemented.
    """
    modules = _read_json(source, "modules.json")
    pooling: Pooling = "mean"
    normalize = True
    if modules is not None:
        kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
        unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
        if unknown:
            raise EngineFailed("model_load_failed", f"{source}: modules {sorted(unknown)}")
        normalize = "Normalize" in kinds
        folder = next((m["path"] for m in modules if m["type"].endswith("Pooling")), "")
        pooling = _pooling(source, _read_json(source, f"{folder}/config.json") or {})
    sentence = _read_json(source, "sentence_bert_config.json") or {}
    config = loaded.config.get_text_config()
    own = sentence.get("max_seq_length") or getattr(config, "max_position_embeddings", None)
    longest = min(own or _UNKNOWN_CONTEXT, limit or 2**31)
    return Shape(pooling, normalize, longest, int(config.hidden_size))


def _pooling(source: str, config: dict[str, Any]) -> Pooling:
    chosen = [name for name, value in config.items() if name.startswith("pooling_mode") and value]
    if len(chosen) == 1 and chosen[0] in _POOLING_FLAGS:
        return _POOLING_FLAGS[chosen[0]]
    raise EngineFailed("model_load_failed", f"{source}: pooling {chosen} is not implemented")


def _read_json(source: str, name: str) -> Any:
    found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(found).read_text()) if found else None
