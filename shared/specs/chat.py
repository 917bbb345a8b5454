"""``/v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.errors import InvalidRequest
from shared.specs.common import MAX_NEW_TOKENS, GenerationSpec, Text, require_one
from shared.specs.formats import ResponseFormat

MAX_MESSAGES = 2_048
MAX_TOP_LOGPROBS = 20


class TextPart(BaseModel):
    """One part of a message given as a list; text only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=256)]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatCompletionSpec(GenerationSpec):
    """A chat completion: a conversation in, ``n`` replies out."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    response_format: ResponseFormat | None = None
    """What the replies are held to while they are generated."""
    logprobs: bool = False
    """Whether the answer tells how likely its tokens were."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """How many of the likeliest tokens it tells beside each."""

    @model_validator(mode="after")
    def _one_token_limit(self) -> ChatCompletionSpec:
        require_one(self, "max_tokens", "max_completion_tokens")
        return self

    def check_body(self) -> None:
        super().check_body()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
        if self.response_format is not None:
            self.response_format.check("response_format")

    @property
    def alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def grammar(self) -> str | None:
        """The JSON schema, as JSON, that replies are held to; None for plain text."""
        return None if self.response_format is None else self.response_format.grammar

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def estimated_input_tokens(self) -> int:
        return sum(len(message.text) for message in self.messages) // 4 + 4 * len(self.messages)
