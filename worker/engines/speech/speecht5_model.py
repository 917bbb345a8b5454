"""SpeechT5 with its HiFi-GAN: a voice is a speaker embedding in a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan

from worker.engines.base import EngineFailed
from worker.engines.speech.base import Utterance
from worker.engines.speech.settings import VoiceEntry
from worker.engines.speech.transformers_model import (
    Checkpoint,
    TransformersModel,
    catalog_voices,
)

_VOCODER_FOLDER = "vocoder"
_SPEAKERS_FOLDER = "speakers"


class SpeechT5Model(TransformersModel):
    """A ``SpeechModel``."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        weights: Any,
        vocoder: Any,
        tokenizer: Any,
        entries: Sequence[VoiceEntry],
        speakers: Mapping[str, Tensor],
    ) -> None:
        voices = [entry.as_voice() for entry in entries]
        super().__init__(checkpoint, [weights, vocoder], voices, int(vocoder.config.sampling_rate))
        self._weights = weights
        self._vocoder = vocoder
        self._tokenizer = tokenizer
        self._speakers = speakers
        self._positions = int(weights.config.max_text_positions)
        self.longest = min(self.longest, self._positions - 2)

    def fits(self, prepared: str) -> bool:
        return len(self._tokenizer(prepared)["input_ids"]) <= self._positions

    def _waveform(self, utterance: Utterance) -> Tensor:
        inputs = self._tokenizer(utterance.text, return_tensors="pt")
        waveform: Tensor = self._weights.generate_speech(
            inputs["input_ids"].to(self._weights.device),
            self._speakers[utterance.voice],
            vocoder=self._vocoder,
        )
        return waveform


def load(checkpoint: Checkpoint) -> SpeechT5Model:
    """Raises EngineFailed ``model_load_failed``."""
    weights = checkpoint.weights(SpeechT5ForTextToSpeech)
    vocoder = checkpoint.weights(SpeechT5HifiGan, _vocoder(checkpoint))
    language = checkpoint.settings.language or "en"
    entries = catalog_voices(checkpoint.settings, language)
    if not checkpoint.settings.voices:
        entries = _speakers_of(checkpoint, language)
    size = int(weights.config.speaker_embedding_dim)
    speakers = {entry.id: _embedding(checkpoint, entry, size) for entry in entries}
    return SpeechT5Model(
        checkpoint,
        weights=weights,
        vocoder=vocoder,
        tokenizer=checkpoint.tokenizer(),
        entries=entries,
        speakers=speakers,
    )


def _vocoder(checkpoint: Checkpoint) -> str:
    if checkpoint.settings.vocoder:
        return checkpoint.settings.vocoder
    beside = Path(checkpoint.source) / _VOCODER_FOLDER
    if beside.is_dir():
        return str(beside)
    raise EngineFailed(
        "model_load_failed",
        "SpeechT5 makes spectrograms: name its HiFi-GAN in the setting 'vocoder', or put it into "
        f"the folder '{_VOCODER_FOLDER}' of the model's directory",
    )


def _speakers_of(checkpoint: Checkpoint, language: str) -> list[VoiceEntry]:
    folder = Path(checkpoint.source) / _SPEAKERS_FOLDER
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        raise EngineFailed(
            "model_load_failed",
            "SpeechT5 needs a speaker embedding: list voices with a safetensors 'file' each in the "
            f"setting 'voices', or put such files into '{_SPEAKERS_FOLDER}'",
        )
    return [
        VoiceEntry(id=file.stem, language=language, file=f"{_SPEAKERS_FOLDER}/{file.name}")
        for file in files
    ]


def _embedding(checkpoint: Checkpoint, entry: VoiceEntry, size: int) -> Tensor:
    tensors = list(checkpoint.tensors(entry).values())
    if len(tensors) != 1 or tensors[0].numel() != size:
        message = f"voice '{entry.id}': its file must hold one tensor of {size} numbers"
        raise EngineFailed("model_load_failed", message)
    return tensors[0].reshape(1, size).to(checkpoint.dtype)
