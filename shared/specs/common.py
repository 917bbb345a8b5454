"""What every inference body shares, and the sampling parameters of generated text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.errors import InvalidRequest
from shared.specs.media import MediaReference

MAX_STOP_SEQUENCES = 4
MAX_CHOICES = 16
MAX_NEW_TOKENS = 131_072
MAX_TEXT_CHARACTERS = 2_000_000
MOST_LOGPROBS = 2**18
"""In one answer, likely tokens beside those that were picked included: each takes some 80 bytes."""

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]


class InferenceSpec(BaseModel):
    """The body of one inference call. Unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=256)]
    user: Annotated[str, Field(max_length=256)] | None = None
    """The caller's own label; kept with the job, never read by an engine."""

    def estimated_input_tokens(self) -> int:
        """A rough count (four characters a token) for sizing shards; never billed."""
        raise NotImplementedError

    def estimated_output_tokens(self, default: int) -> int:
        """The most tokens the call may generate, ``default`` when it names no limit."""
        raise NotImplementedError

    @property
    def result_count(self) -> int:
        """How many texts, vectors or images the call asks for."""
        return 1

    def check_body(self) -> None:
        """Raises InvalidRequest, or a subclass, for what no type says: ``param`` is the place."""
        return

    def check_row(self) -> None:
        """Raises InvalidRequest, or a subclass, for what only a call of its own may ask for, and no
        row of a batch."""
        return

    def media(self) -> Sequence[MediaReference]:
        """The pictures and sounds that the call brings along."""
        return ()


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    include_usage: bool = False
    """Whether a chunk with the counted tokens comes last."""
    include_obfuscation: Literal[False] = False
    """Nothing is added to hide how long the pieces are."""


class GenerationSpec(InferenceSpec):
    """Sampling parameters of chat completions and completions."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOP_SEQUENCES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    stream: bool = False
    """Of a direct call: its text is told as it is generated. Refused everywhere else."""
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        """Clients send ``"temperature": null`` for "unset"."""
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def stop_sequences(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    @property
    def result_count(self) -> int:
        return self.n

    @property
    def candidates(self) -> int:
        """How many texts are generated for a prompt; of more than ``n``, the likeliest are told."""
        return self.n

    @property
    def alternatives(self) -> int | None:
        """How many of the likeliest tokens are told beside each one that was picked; None: nobody
        asks how likely tokens are."""
        return None

    def check_body(self) -> None:
        if self.max_new_tokens is not None:
            self.check_logprobs(self.max_new_tokens * self.result_count)

    def check_logprobs(self, tokens: int) -> None:
        """Raises InvalidRequest where an answer of so many tokens would tell too much of them."""
        param = "top_logprobs" if "top_logprobs" in self.model_fields_set else "logprobs"
        check_logprobs(self.alternatives, tokens, param)

    def estimated_output_tokens(self, default: int) -> int:
        return (self.max_new_tokens or default) * self.n


def check_logprobs(alternatives: int | None, tokens: int, param: str) -> None:
    """Raises InvalidRequest when so many tokens, each with likely ones beside it, are too much."""
    if alternatives is not None and tokens * (1 + alternatives) > MOST_LOGPROBS:
        raise InvalidRequest(
            f"{tokens} tokens with {alternatives} likely ones beside each are too many:"
            f" {MOST_LOGPROBS} logprobs are the most; ask for fewer tokens",
            param=param,
        )


def require_one(spec: InferenceSpec, *names: str) -> None:
    """Raises ValueError when more than one of the alternatives ``names`` is given."""
    given = [name for name in names if getattr(spec, name) is not None]
    if len(given) > 1:
        raise ValueError(f"give only one of {' and '.join(given)}")
