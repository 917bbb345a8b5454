"""VITS, and with it MMS: whole sentences at once, several in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import VitsModel as VitsWeights

from worker.engines.base import EngineFailed
from worker.engines.speech.base import Samples, Utterance
from worker.engines.speech.settings import VoiceEntry
from worker.engines.speech.transformers_model import (
    Checkpoint,
    TransformersModel,
    as_samples,
    catalog_voices,
)

_MICROBATCH_ON_DEVICE = 8


class VitsModel(TransformersModel):
    """A ``SpeechModel``. With ``microbatch_sentences`` over 1, sentences share a forward pass and
    its random numbers, so what a sentence sounds like depends, a little, on its company."""

    longest = 300
    speeds = (0.5, 2.0)

    def __init__(
        self, checkpoint: Checkpoint, weights: Any, tokenizer: Any, entries: Sequence[VoiceEntry]
    ) -> None:
        rate = int(weights.config.sampling_rate)
        super().__init__(checkpoint, [weights], [entry.as_voice() for entry in entries], rate)
        self._weights = weights
        self._tokenizer = tokenizer
        self._speakers = {entry.id: entry.speaker for entry in entries}
        on_cpu = checkpoint.device.type == "cpu"
        wanted = checkpoint.settings.microbatch_sentences
        self.together = wanted or (1 if on_cpu else _MICROBATCH_ON_DEVICE)

    def prepare(self, text: str, voice: str) -> str:
        spoken = super().prepare(text, voice)
        known = spoken and self._tokenizer(spoken)["input_ids"]
        silent = {self._tokenizer.convert_tokens_to_ids("<pad>"), 0}
        return spoken if known and not silent.issuperset(known) else ""

    def speak(self, utterances: Sequence[Utterance]) -> list[Samples]:
        sounds: dict[int, Samples] = {}
        order = sorted(range(len(utterances)), key=lambda place: _kind(utterances[place]))
        for _, group in groupby(order, key=lambda place: _kind(utterances[place])):
            places = list(group)
            spoken = self._together([utterances[place] for place in places])
            sounds.update(zip(places, spoken, strict=True))
        return [sounds[place] for place in range(len(utterances))]

    def _together(self, utterances: Sequence[Utterance]) -> list[Samples]:
        first = utterances[0]
        torch.manual_seed(first.seed)
        texts = [utterance.text for utterance in utterances]
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            out = self._weights(
                input_ids=inputs["input_ids"].to(self._weights.device),
                attention_mask=inputs["attention_mask"].to(self._weights.device),
                speaker_id=self._speakers[first.voice],
                speaking_rate=self._weights.config.speaking_rate * first.speed,
            )
        lengths: list[int] = out.sequence_lengths.long().tolist()
        waveforms: Sequence[Tensor] = out.waveform
        pairs = zip(waveforms, lengths, strict=True)
        return [as_samples(waveform[:length]) for waveform, length in pairs]


def _kind(utterance: Utterance) -> tuple[str, float]:
    return utterance.voice, utterance.speed


def load(checkpoint: Checkpoint) -> VitsModel:
    """Raises EngineFailed ``gpl_phonemizer_needed``, ``uroman_needed`` or ``bad_settings``."""
    tokenizer = checkpoint.tokenizer()
    _check_tokenizer(tokenizer)
    weights = checkpoint.weights(VitsWeights)
    language = checkpoint.settings.language or _language(tokenizer)
    entries = catalog_voices(checkpoint.settings, language)
    speakers = int(weights.config.num_speakers)
    if speakers > 1 and not checkpoint.settings.voices:
        entries = [
            VoiceEntry(id=f"speaker-{n}", name=f"Speaker {n}", language=language, speaker=n)
            for n in range(speakers)
        ]
    for entry in entries:
        if entry.speaker is not None and entry.speaker >= speakers:
            message = f"voice '{entry.id}': this model has {speakers} speakers, counted from 0"
            raise EngineFailed("bad_settings", message)
    return VitsModel(checkpoint, weights, tokenizer, entries)


def _check_tokenizer(tokenizer: Any) -> None:
    if getattr(tokenizer, "phonemize", False):
        raise EngineFailed(
            "gpl_phonemizer_needed",
            "this checkpoint reads phonemes (its tokenizer has phonemize = true), which only the "
            "GPL-licensed phonemizer and espeak-ng make; Pressrun does without them: choose a "
            "checkpoint that reads letters",
        )
    if getattr(tokenizer, "is_uroman", False) and find_spec("uroman") is None:
        raise EngineFailed(
            "uroman_needed",
            "this checkpoint reads a romanised script (its tokenizer has is_uroman = true): "
            "install the package uroman beside transformers",
        )


def _language(tokenizer: Any) -> str:
    """BCP 47 where MMS' three letters have a shorter form that this engine asks for."""
    named = str(getattr(tokenizer, "language", None) or "")
    return {"eng": "en", "en-us": "en-US", "deu": "de", "fra": "fr", "spa": "es"}.get(named, named)
