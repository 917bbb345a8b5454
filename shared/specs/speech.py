"""``/v1/audio/speech``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shared.specs.common import InferenceSpec

MAX_SPEECH_CHARACTERS = 100_000
CHARACTERS_PER_SECOND = 15.0
"""About how fast a voice reads; sizes shards and is never billed."""

AudioFormat = Literal["mp3", "opus", "flac", "wav", "pcm"]


class SpeechSpec(InferenceSpec):
    """A text read aloud."""

    input: Annotated[str, Field(min_length=1, max_length=MAX_SPEECH_CHARACTERS)]
    voice: Annotated[str, Field(min_length=1, max_length=128)] = "default"
    """A voice of the model (``GET /v1/audio/voices``); ``default`` is its first."""
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0
    response_format: AudioFormat = "mp3"
    """``opus`` comes in an Ogg container; ``pcm`` is 16-bit little-endian mono without a header."""
    sample_rate: Annotated[int, Field(ge=8_000, le=48_000)] | None = None
    """Hertz; the model's own when unset. Opus is always 48,000."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stream_format: Literal["audio"] = "audio"

    @model_validator(mode="before")
    @classmethod
    def _openai_words(cls, data: Any) -> Any:
        """``voice`` may be an object with an id; ``null`` means the default."""
        if not isinstance(data, dict):
            return data
        given = {name: value for name, value in data.items() if value is not None}
        voice = given.get("voice")
        if isinstance(voice, dict) and set(voice) == {"id"}:
            given["voice"] = voice["id"]
        return given

    @property
    def expected_seconds(self) -> float:
        """About how long the sound will be."""
        return len(self.input) / CHARACTERS_PER_SECOND / self.speed

    def estimated_input_tokens(self) -> int:
        return len(self.input) // 4 + 1

    def estimated_output_tokens(self, default: int) -> int:
        return 0
