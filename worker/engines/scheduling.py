"""Which scheduler a model gets: by its config, and by a numerical check of what config hides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig
from transformers.utils.import_utils import (
    is_flash_attn_2_available,
    is_flash_attn_3_available,
)

from worker.engines.adapters import Adapters
from worker.engines.base import EngineFailed
from worker.engines.continuous import ContinuousScheduler, lane_of
from worker.engines.forward import Forward, slots_agree
from worker.engines.inflight import Limits
from worker.engines.loading import LoadedModel
from worker.engines.memory import free_bytes
from worker.engines.slot_cache import SlotCache
from worker.engines.slot_scheduler import SlotScheduler
from worker.engines.static_batches import StaticScheduler, padding_is_harmless
from worker.engines.text_settings import TextSettings
from worker.engines.turns import Lane, Turns
from worker.engines.vocabulary import Vocabulary

log = structlog.get_logger()

_TOLERANCE = {torch.float32: 2e-3, torch.float16: 0.05, torch.bfloat16: 0.15}
_MOST_CPU_CACHE = 8 * 2**30
_UNKNOWN_CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class Chosen:
    """A scheduler and the reason for it."""

    scheduler: Lane
    max_context: int
    why: str


def model_class(config: PreTrainedConfig) -> Any:
    """The auto class that generates text with ``config``."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def choose_scheduler(
    loaded: LoadedModel, vocabulary: Vocabulary, settings: TextSettings, adapters: Adapters
) -> Chosen:
    """Raises EngineFailed ``bad_settings`` when the scheduler asked for cannot run this model."""
    context = min(settings.max_context or 2**31, model_context(loaded.config))
    obstacle = "asked for" if settings.scheduler == "static" else None
    obstacle = obstacle or config_obstacle(loaded.config, context)
    if obstacle is None:
        forward = Forward(loaded.model, adapters)
        obstacle = numerical_obstacle(forward, loaded)
        if obstacle is None:
            return _in_flight(forward, loaded, vocabulary, settings, context)
    if settings.scheduler not in ("auto", "static"):
        raise EngineFailed("bad_settings", f"{settings.scheduler} cannot run here: {obstacle}")
    log.info("static_microbatches", why=obstacle)
    padding = padding_is_harmless(loaded.model, _TOLERANCE[loaded.dtype])
    static = StaticScheduler(
        loaded.model, vocabulary, adapters, rows=settings.slots, padding=padding
    )
    return Chosen(static, context, obstacle)


def model_context(config: PreTrainedConfig) -> int:
    """The model's longest text in tokens; a guess for models without positions."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or _UNKNOWN_CONTEXT)


def config_obstacle(config: PreTrainedConfig, context: int) -> str | None:
    """Why the config rules slots out, or None. ``context`` is what rows may use at most."""
    text = config.get_text_config()
    if config.is_encoder_decoder:
        return "an encoder-decoder"
    window = getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None)
    if window is not None and window < context:
        return f"attention is limited to {window} tokens of a context of {context}"
    kinds = set(getattr(text, "layer_types", None) or []) - {"full_attention"}
    if window is None and kinds:
        return f"layers of other kinds: {', '.join(sorted(kinds))}"
    rope = getattr(text, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or context
    if rope.get("rope_type") in ("dynamic", "longrope") and original < context:
        return "rotary frequencies depend on the longest row of the microbatch"
    return None


def numerical_obstacle(forward: Forward, loaded: LoadedModel) -> str | None:
    try:
        difference = slots_agree(forward, int(loaded.config.get_text_config().vocab_size))
    except Exception as error:
        return f"a forward pass with slots failed: {type(error).__name__}: {error}"[:300]
    if not difference <= _TOLERANCE[loaded.dtype]:
        return f"slots change the logits by {difference:.2g} of their spread"
    log.info("slots_agree", difference=round(difference, 6))
    return None


def _in_flight(
    forward: Forward,
    loaded: LoadedModel,
    vocabulary: Vocabulary,
    settings: TextSettings,
    context: int,
) -> Chosen:
    budget = settings.kv_cache_bytes or _default_cache_bytes(loaded.device)
    cache = SlotCache(budget)
    token_bytes = _bytes_per_token(forward)
    cells = budget // token_bytes
    limits = Limits(
        slots=settings.slots,
        cache_tokens=cells,
        prefill_tokens=settings.prefill_tokens,
        refill_at=settings.refill_at or max(1, settings.slots // 8),
    )
    if cells < 2:  # noqa: PLR2004 - a token of prompt and one of output
        raise EngineFailed("bad_settings", f"kv_cache_bytes {budget} holds no row")
    context = min(context, cells)
    slots = SlotScheduler(forward, vocabulary, limits, cache, settings.share_prefixes)
    if not _wants_continuous(loaded, settings):
        return Chosen(slots, context, "rows are independent in the cache")
    lanes: dict[str, Lane] = {"exact": slots}
    for name in ("greedy", "sampled"):
        lanes[name] = ContinuousScheduler(
            loaded.model,
            vocabulary,
            limits,
            token_bytes=token_bytes,
            sampled=name == "sampled",
        )
    turns = Turns(lanes, lane_of, quota=4 * settings.slots)
    return Chosen(turns, context, "paged attention; seeds, penalties and adapters take the slots")


def _wants_continuous(loaded: LoadedModel, settings: TextSettings) -> bool:
    if settings.scheduler == "continuous":
        return True
    # Without flash attention every row attends, masked, over every other row's cache.
    flash = is_flash_attn_2_available() or is_flash_attn_3_available()
    return settings.scheduler == "auto" and loaded.device.type == "cuda" and flash


def _bytes_per_token(forward: Forward) -> int:
    probe = SlotCache(0)
    probe.adopt(forward.prefill([[0, 0]])[1])
    return probe.bytes_per_token


def _default_cache_bytes(device: torch.device) -> int:
    free = free_bytes(device)
    return free * 4 // 5 if device.type == "cuda" else min(free // 4, _MOST_CPU_CACHE)
