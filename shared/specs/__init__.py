"""Frozen, validated inputs: one module per endpoint, one table of them."""

from __future__ import annotations

from shared.specs.campaigns import Audience, CampaignSpec
from shared.specs.chat import ChatCompletionSpec, ChatMessage
from shared.specs.classifications import ClassificationSpec
from shared.specs.common import GenerationSpec, InferenceSpec
from shared.specs.completions import CompletionSpec
from shared.specs.embeddings import EmbeddingSpec
from shared.specs.images import ImageEditSpec, ImageGenerationSpec, ImageSpec, ImageVariationSpec
from shared.specs.media import MediaReference
from shared.specs.moderations import ModerationSpec
from shared.specs.parsing import ANY_ENDPOINT, ENDPOINTS, parse_body, parse_body_json, spec_for
from shared.specs.responses import ResponseSpec
from shared.specs.speech import SpeechSpec
from shared.specs.videos import Caption, CompositionSpec, Scene, VideoSpec

__all__ = [
    "ANY_ENDPOINT",
    "ENDPOINTS",
    "Audience",
    "CampaignSpec",
    "Caption",
    "ChatCompletionSpec",
    "ChatMessage",
    "ClassificationSpec",
    "CompletionSpec",
    "CompositionSpec",
    "EmbeddingSpec",
    "GenerationSpec",
    "ImageEditSpec",
    "ImageGenerationSpec",
    "ImageSpec",
    "ImageVariationSpec",
    "InferenceSpec",
    "MediaReference",
    "ModerationSpec",
    "ResponseSpec",
    "Scene",
    "SpeechSpec",
    "VideoSpec",
    "parse_body",
    "parse_body_json",
    "spec_for",
]
