"""Frozen, validated inputs: one module per endpoint, one table of them."""

from __future__ import annotations

from shared.specs.chat import ChatCompletionSpec, ChatMessage
from shared.specs.common import GenerationSpec, InferenceSpec
from shared.specs.completions import CompletionSpec
from shared.specs.embeddings import EmbeddingSpec
from shared.specs.parsing import ENDPOINTS, parse_body, parse_body_json, spec_for

__all__ = [
    "ENDPOINTS",
    "ChatCompletionSpec",
    "ChatMessage",
    "CompletionSpec",
    "EmbeddingSpec",
    "GenerationSpec",
    "InferenceSpec",
    "parse_body",
    "parse_body_json",
    "spec_for",
]
