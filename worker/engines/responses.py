"""Bodies in OpenAI's shape: completions, embeddings and errors."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from worker.engines.protocol import RowResult

FinishReason = Literal["stop", "length"]


class FinishedChoice(msgspec.Struct, frozen=True):
    """What one choice says, and why it ended."""

    index: int
    text: str
    finish_reason: FinishReason
    refusal: str | None = None
    """Why the text is not what its schema asks, where it isn't."""
    logprobs: dict[str, Any] | None = None
    """How likely its tokens are, as the body says it; None where nobody asks."""


class Usage(msgspec.Struct, frozen=True):
    """Counted tokens; ``completion`` includes an end token the model generated."""

    prompt: int
    completion: int = 0

    def as_body(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


def chat_body(
    model: str, fingerprint: str, choices: Sequence[FinishedChoice], usage: Usage
) -> bytes:
    """A ``chat.completion`` object as JSON."""
    rendered: list[dict[str, Any]] = [
        {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": choice.refusal},
            "logprobs": choice.logprobs,
            "finish_reason": choice.finish_reason,
        }
        for choice in choices
    ]
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": "chat.completion"}
    return _completion(head, model, fingerprint, rendered, usage)


def completion_body(
    model: str, fingerprint: str, choices: Sequence[FinishedChoice], usage: Usage
) -> bytes:
    """A ``text_completion`` object as JSON."""
    rendered: list[dict[str, Any]] = [
        {
            "text": choice.text,
            "index": choice.index,
            "logprobs": choice.logprobs,
            "finish_reason": choice.finish_reason,
        }
        for choice in choices
    ]
    head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion"}
    return _completion(head, model, fingerprint, rendered, usage)


def _completion(
    head: dict[str, str],
    model: str,
    fingerprint: str,
    choices: list[dict[str, Any]],
    usage: Usage,
) -> bytes:
    return msgspec.json.encode(
        {
            **head,
            "created": int(time.time()),
            "model": model,
            "choices": choices,
            "usage": usage.as_body(),
            "system_fingerprint": fingerprint,
        }
    )


def embedding_body(
    model: str, vectors: NDArray[np.float32], encoding_format: str, prompt_tokens: int
) -> bytes:
    """A list of ``embedding`` objects; ``vectors`` is (inputs, dimensions)."""
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(vector, encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _vector(vector: NDArray[np.float32], encoding_format: str) -> str | list[float]:
    if encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    values: list[float] = vector.tolist()
    return values


def refusal(
    shard: int, epoch: int, index: int, *, code: str, message: str, param: str | None
) -> RowResult:
    """A row the caller must change: status 400."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return RowResult(shard, epoch, index, 400, msgspec.json.encode({"error": error}))


def out_of_memory(shard: int, epoch: int, index: int, message: str) -> RowResult:
    """A row that alone was too much for this machine: status 500."""
    error = {"message": message, "type": "server_error", "param": None, "code": "out_of_memory"}
    return RowResult(shard, epoch, index, 500, msgspec.json.encode({"error": error}))


def unusable_schema(shard: int, epoch: int, index: int, why: str) -> RowResult:
    """A row whose answers can't be held to its schema: status 400."""
    message = f"answers can't be held to this schema: {why}"
    return refusal(
        shard, epoch, index, code="invalid_schema", message=message, param="response_format"
    )


def unusable_adapter(shard: int, epoch: int, index: int, name: str, why: str) -> RowResult:
    """A row whose adapter this model can't run with: status 500."""
    message = f"the adapter of {name!r} cannot be used: {why}"[:500]
    error = {"message": message, "type": "server_error", "param": None, "code": "adapter_unusable"}
    return RowResult(shard, epoch, index, 500, msgspec.json.encode({"error": error}))
