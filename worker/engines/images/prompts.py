"""How long prompts are in the model's own tokens, and how many of them it reads."""

from __future__ import annotations

import inspect
from typing import Any

_UNSET_LENGTH = 1_000_000
"""Tokenizers without a limit of their own say an astronomical number."""


class PromptMeter:
    """Counts with the tokenizer that reads the most; a model may have up to four."""

    def __init__(self, pipeline: Any) -> None:
        call_limit = _call_limit(pipeline)
        found = [
            (window, tokenizer)
            for name, tokenizer in sorted(pipeline.components.items())
            if name.startswith("tokenizer") and hasattr(tokenizer, "model_max_length")
            for window in [_window(tokenizer, call_limit)]
            if window is not None
        ]
        self._window: int
        self._tokenizer: Any
        self._window, self._tokenizer = max(found, key=lambda pair: pair[0], default=(0, None))

    def count(self, text: str) -> int:
        """Tokens of the text itself, whether the model reads all of them or not."""
        if self._tokenizer is None or not text:
            return 0
        ids = self._tokenizer(text, add_special_tokens=False, truncation=False).input_ids
        return len(ids)

    def warning(self, text: str, what: str) -> str | None:
        """What a tenant is told when the model won't read the whole of its ``what``."""
        if self._tokenizer is None or not text:
            return None
        # Tokens that the tokenizer adds take room in the window too.
        room = self._window - (self._tokenizer.num_special_tokens_to_add() or 0)
        tokens = self.count(text)
        if tokens <= room:
            return None
        return f"the {what} has {tokens} tokens, this model reads the first {room}"


def _call_limit(pipeline: Any) -> int | None:
    parameter = inspect.signature(type(pipeline).__call__).parameters.get("max_sequence_length")
    return parameter.default if parameter and isinstance(parameter.default, int) else None


def _window(tokenizer: Any, call_limit: int | None) -> int | None:
    own = int(tokenizer.model_max_length)
    own_limit = own if own < _UNSET_LENGTH else None
    if call_limit is None or "CLIP" in type(tokenizer).__name__:
        return own_limit  # the call's limit is for the other encoders
    return call_limit if own_limit is None else min(own_limit, call_limit)
