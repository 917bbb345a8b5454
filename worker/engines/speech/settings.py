"""The speech engine's options in the model catalog."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from worker.engines.speech.base import Voice


class VoiceEntry(BaseModel):
    """A voice of the catalog: what partners see, and where the model finds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=128)]
    name: str = ""
    language: str = ""
    """A BCP 47 tag such as ``en-US``."""
    speaker: Annotated[int, Field(ge=0)] | None = None
    """The speaker's number, for VITS with several."""
    file: str | None = None
    """A safetensors file in the model's directory with the speaker's embedding or prompt."""

    def as_voice(self) -> Voice:
        return Voice(self.id, self.name or self.id, self.language)


class SpeechSettings(BaseModel):
    """Unknown options are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str | None = None
    """A torch device, for models on transformers; a GPU when there is one."""
    dtype: str | None = None
    """``float32`` (the default), ``bfloat16`` or ``float16``, for models on transformers."""
    threads: Annotated[int, Field(ge=1, le=64)] | None = None
    """CPU threads: sentences that hibari speaks side by side, torch's threads otherwise; encoding
    shares them. ``OMP_NUM_THREADS``, else the cores."""
    voices: list[VoiceEntry] = []
    """What partners may ask for, the default first. Empty: all that the model has."""
    language: str | None = None
    """What the model reads; English texts are spelled out (numbers, dates, …) before."""
    voices_folder: str | None = None
    """Where hibari's further voices lie; its own cache directory."""
    vocoder: str | None = None
    """SpeechT5's HiFi-GAN: a directory or a hub id; ``vocoder`` in the model's directory."""
    microbatch_sentences: Annotated[int, Field(ge=1, le=64)] | None = None
    """Sentences in one forward pass, for VITS; 1 on a CPU, 8 elsewhere."""
    max_new_tokens: Annotated[int, Field(ge=16, le=16_384)] | None = None
    """The longest sound of a sentence, for models that generate it token by token."""
    rows: Annotated[int, Field(ge=1, le=64)] = 4
    """Rows that are spoken in turns; the next wait."""
    loudness_lufs: Annotated[float, Field(ge=-40, le=-6)] | None = -16.0
    """Integrated loudness of what is delivered; unset leaves the model's own."""
    ceiling_dbfs: Annotated[float, Field(ge=-12, le=0)] = -1.0
    """Peaks stay below this."""
    sentence_pause_seconds: Annotated[float, Field(ge=0, le=10)] = 0.35
    paragraph_pause_seconds: Annotated[float, Field(ge=0, le=10)] = 0.75
    clause_pause_seconds: Annotated[float, Field(ge=0, le=10)] = 0.12
    """Where a sentence that is too long for the model had to be cut."""
