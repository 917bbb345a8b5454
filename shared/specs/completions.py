"""``/v1/completions``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.errors import InvalidRequest, UnsupportedParameter
from shared.specs.common import MAX_CHOICES, GenerationSpec, Text

MAX_PROMPTS = 128
MAX_LOGPROBS = 5
DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI's completions endpoint generates when no limit is given."""


class CompletionSpec(GenerationSpec):
    """A plain continuation of one prompt, or of up to 128."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    """The answer tells how likely its tokens were, and so many of the likeliest beside each."""

    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """So many texts are generated for a prompt, and the ``n`` likeliest, by token, are told."""

    def check_body(self) -> None:
        super().check_body()
        if self.candidates < self.n:
            raise InvalidRequest("'best_of' can't be less than 'n'", param="best_of")
        if self.candidates > self.n and self.stream:
            message = "'best_of' can't be streamed: which text is told is known at its end"
            raise InvalidRequest(message, param="best_of")
        if self.echo and self.logprobs is not None:
            message = "'logprobs' is not supported with 'echo': those of a prompt are not told"
            raise UnsupportedParameter(message, param="logprobs")

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)

    @property
    def max_new_tokens(self) -> int:
        return self.max_tokens or DEFAULT_COMPLETION_TOKENS

    @property
    def candidates(self) -> int:
        return self.n if self.best_of is None else self.best_of

    @property
    def result_count(self) -> int:
        return self.n * len(self.prompts)

    def estimated_input_tokens(self) -> int:
        return sum(len(prompt) for prompt in self.prompts) // 4

    def estimated_output_tokens(self, default: int) -> int:
        return self.max_new_tokens * self.candidates * len(self.prompts)
