"""Bark: generates sound token by token; a voice is a prompt of three tensors in safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import BarkModel as BarkWeights

from worker.engines.base import EngineFailed
from worker.engines.speech.base import Utterance
from worker.engines.speech.settings import VoiceEntry
from worker.engines.speech.transformers_model import (
    Checkpoint,
    TransformersModel,
    catalog_voices,
)

_PROMPTS = {"semantic_prompt": 1, "coarse_prompt": 2, "fine_prompt": 2}
"""Tensors of a voice and their dimensions."""


class BarkModel(TransformersModel):
    """A ``SpeechModel``. About 13 seconds is the most that Bark says at once."""

    longest = 160

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights: Any,
        tokenizer: Any,
        entries: Sequence[VoiceEntry],
        prompts: Mapping[str, dict[str, Tensor] | None],
    ) -> None:
        rate = int(weights.generation_config.sample_rate)
        super().__init__(checkpoint, [weights], [entry.as_voice() for entry in entries], rate)
        self._weights = weights
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._text_tokens = int(
            weights.generation_config.semantic_config["max_input_semantic_length"]
        )

    def fits(self, prepared: str) -> bool:
        read = self._tokenizer(prepared, add_special_tokens=False)["input_ids"]
        return len(read) <= self._text_tokens

    def _waveform(self, utterance: Utterance) -> Tensor:
        inputs = self._tokenizer(
            utterance.text,
            return_tensors="pt",
            padding="max_length",
            max_length=self._text_tokens,
            truncation=True,
            add_special_tokens=False,
            return_attention_mask=True,
            return_token_type_ids=False,
        )
        more: dict[str, Any] = {}
        if self._checkpoint.settings.max_new_tokens is not None:
            more["semantic_max_new_tokens"] = self._checkpoint.settings.max_new_tokens
        waveform: Tensor = self._weights.generate(
            input_ids=inputs["input_ids"].to(self._weights.device),
            attention_mask=inputs["attention_mask"].to(self._weights.device),
            history_prompt=self._prompts[utterance.voice],
            **more,
        )
        return waveform


def load(checkpoint: Checkpoint) -> BarkModel:
    """Raises EngineFailed ``model_load_failed``."""
    weights = checkpoint.weights(BarkWeights)
    entries = catalog_voices(checkpoint.settings, checkpoint.settings.language or "en")
    prompts = {entry.id: _prompt(checkpoint, entry) if entry.file else None for entry in entries}
    return BarkModel(checkpoint, weights, checkpoint.tokenizer(), entries, prompts)


def _prompt(checkpoint: Checkpoint, entry: VoiceEntry) -> dict[str, Tensor]:
    tensors = checkpoint.tensors(entry)
    if {name: tensor.ndim for name, tensor in tensors.items()} != _PROMPTS:
        message = f"voice '{entry.id}': its file must hold {', '.join(_PROMPTS)}"
        raise EngineFailed("model_load_failed", message)
    return tensors
