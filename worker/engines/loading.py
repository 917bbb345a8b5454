"""Models from safetensors: device, dtype, weights, tokenizer and the fingerprint of all that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from shared.errors import InvalidRequest
from worker.engines.base import EngineFailed, OnProgress
from worker.engines.quantized import QuantizedLinear, load_quantized, read_quantization

ENGINE_VERSION = "1"
"""Part of the fingerprint: changes whenever the same weights would give other text."""
_SAMPLE_BYTES = 4096
_SAMPLES = 16

_Settings = TypeVar("_Settings", bound=BaseModel)


class EngineSettings(BaseModel):
    """Options that every engine on transformers knows. Unknown ones are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str | None = None
    """A torch device; a GPU when there is one."""
    dtype: str | None = None
    """``float32``, ``bfloat16`` or ``float16``; the fastest that the device computes natively."""
    threads: int | None = None
    """CPU threads of torch; ``OMP_NUM_THREADS``, else the cores."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Weights on a device and the tokenizer that belongs to them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: PreTrainedConfig
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    weight_bytes: int

    def check_tokens(self, texts: Iterable[Sequence[int]], param: str) -> None:
        """Raises InvalidRequest, blaming ``param``, for a token that the model does not know.

        Tokenizers are given more tokens than their model now and then, and a forward pass with one
        of those would end the engine, with everybody's rows.
        """
        known = getattr(self.config.get_text_config(), "vocab_size", None)
        most = max((token for tokens in texts for token in tokens), default=0)
        if known is not None and most >= known:
            raise InvalidRequest(
                f"the tokenizer makes a token {most} of this, and the model knows {known}",
                param=param,
            )


def read_settings(kind: type[_Settings], given: dict[str, Any]) -> _Settings:
    """Checks an engine's options. Raises EngineFailed ``bad_settings`` naming the first bad one."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise EngineFailed("bad_settings", f"engine setting '{name}': {first['msg']}") from None


def load_model(
    auto_class: Callable[[PreTrainedConfig], Any],
    source: str,
    settings: EngineSettings,
    progress: OnProgress,
) -> LoadedModel:
    """Loads ``source``, a directory or a hub id, with the auto class that ``auto_class`` names.

    Only safetensors, never remote code. Raises EngineFailed ``model_load_failed``.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    logging.disable_progress_bar()
    progress(0.05, f"reading {source}")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        progress(0.2, f"loading weights as {dtype_name(dtype)}")
        model = _with_weights(auto_class(config), source, config, dtype, device)
        model.to(device).eval()
    except Exception as error:
        message = f"{source} cannot be loaded: {type(error).__name__}: {error}"
        raise EngineFailed("model_load_failed", message[:2000]) from error
    progress(0.7, "loaded")
    return LoadedModel(
        model, tokenizer, config, device, dtype, fingerprint(model, dtype), weight_bytes_of(model)
    )


def _with_weights(
    kind: Any, source: str, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device
) -> Any:
    quantization = read_quantization(source)
    if quantization is not None:
        return load_quantized(kind, source, config, dtype, device, quantization)
    return kind.from_pretrained(
        source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False
    )


def weight_bytes_of(model: torch.nn.Module) -> int:
    """Memory of its weights, shared ones once."""
    dense = sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())
    whole = (m.weight_bytes for m in model.modules() if isinstance(m, QuantizedLinear))
    return dense + sum(whole)


def choose_device(wanted: str | None) -> torch.device:
    """The catalog's device; a GPU when it names none and there is one."""
    return torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))


def choose_dtype(wanted: str | None, device: torch.device) -> torch.dtype:
    """The catalog's dtype, or the fastest that the device computes natively.

    Raises EngineFailed ``bad_settings``.
    """
    if wanted is not None:
        known = {dtype_name(d): d for d in (torch.float32, torch.bfloat16, torch.float16)}
        if wanted not in known:
            raise EngineFailed("bad_settings", f"engine setting 'dtype': one of {sorted(known)}")
        return known[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    return torch.bfloat16 if _cpu_computes_bfloat16() else torch.float32


def _cpu_computes_bfloat16() -> bool:
    """By flag, not by a stopwatch: the dtype decides the text, so it must not change by chance."""
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16") or abilities.get("bf16"))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def fingerprint(model: torch.nn.Module, dtype: torch.dtype) -> str:
    """``fp_`` and 16 hex digits: samples of every weight tensor, the dtype, the engine version.

    Tensors over 64 KiB give evenly spread windows, so that a large model takes no minutes; a
    training step changes every window of what it trains.
    """
    digest = hashlib.sha256(f"{ENGINE_VERSION} {dtype_name(dtype)}".encode())
    for name, weights in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weights.shape)}".encode())
        flat = weights.detach().reshape(-1)
        window = max(1, _SAMPLE_BYTES // flat.element_size())
        step = max(window, flat.numel() // _SAMPLES)
        for start in range(0, flat.numel(), step):
            piece = flat[start : start + window].cpu().contiguous().view(torch.uint8)
            digest.update(piece.numpy().tobytes())
    return f"fp_{digest.hexdigest()[:16]}"
