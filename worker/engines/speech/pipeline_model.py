"""Other speech models of transformers, through its ``text-to-audio`` pipeline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import pipeline

from worker.engines.base import EngineFailed
from worker.engines.speech.base import Utterance
from worker.engines.speech.transformers_model import (
    Checkpoint,
    TransformersModel,
    catalog_voices,
)


class PipelineModel(TransformersModel):
    """A ``SpeechModel`` with one voice, which the model chooses."""

    def __init__(self, checkpoint: Checkpoint, speaker: Any) -> None:
        language = checkpoint.settings.language or ""
        voices = [entry.as_voice() for entry in catalog_voices(checkpoint.settings, language)]
        super().__init__(checkpoint, [speaker.model], voices, int(speaker.sampling_rate))
        self._speaker = speaker
        # Of an unknown model's language nothing is known unless the catalog says it.
        self._english = language.lower().startswith("en")

    def _waveform(self, utterance: Utterance) -> Tensor:
        more: dict[str, Any] = {}
        limit = self._checkpoint.settings.max_new_tokens
        if limit is not None and self._speaker.model.can_generate():
            more["generate_kwargs"] = {"max_new_tokens": limit}
        spoken = self._speaker(utterance.text, **more)
        return torch.as_tensor(spoken["audio"])


def load(checkpoint: Checkpoint) -> PipelineModel:
    """Raises EngineFailed ``bad_settings`` when the catalog names several voices."""
    if len(checkpoint.settings.voices) > 1:
        kind = checkpoint.config.model_type
        message = f"engine setting 'voices': one at most, voices of {kind} can't be chosen"
        raise EngineFailed("bad_settings", message)
    speaker = pipeline(
        "text-to-audio",
        model=checkpoint.source,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )
    if not speaker.sampling_rate:
        raise EngineFailed("model_load_failed", "the checkpoint doesn't say its sample rate")
    return PipelineModel(checkpoint, speaker)
