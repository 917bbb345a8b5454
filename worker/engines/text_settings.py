"""What the catalog may say about a text model."""

from __future__ import annotations

from pydantic import Field

from worker.engines.loading import EngineSettings


class TextSettings(EngineSettings):
    """The text engine's options in the model catalog."""

    slots: int = Field(default=128, ge=1, le=4096)
    """Most choices in one microbatch; the cache's bytes may allow fewer."""
    refill_at: int | None = Field(default=None, ge=1)
    """Free slots before waiting rows join; an eighth of ``slots``."""
    prefill_tokens: int = Field(default=2048, ge=64)
    """Most prompt tokens of one forward pass, padding included."""
    share_prefixes: bool = True
    """Whether what prompts begin with in common is prefilled once and copied."""
    kv_cache_bytes: int | None = Field(default=None, ge=1)
    """Most memory of the cache; on a CPU a quarter of what is free, on a GPU four fifths."""
    max_context: int | None = Field(default=None, ge=2)
    """Most tokens of prompt and output; the model's own limit."""
    default_max_tokens: int = Field(default=512, ge=1)
    """Output limit of a chat completion that names none."""
    max_adapters: int = Field(default=16, ge=1, le=1024)
    """Most adapters that are loaded beside the model at a time."""
    scheduler: str = Field(default="auto", pattern="^(auto|in_flight|static|continuous)$")
    """``auto`` takes the best that the model and the device allow."""
