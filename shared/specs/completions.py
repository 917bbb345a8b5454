"""``/v1/completions``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.specs.common import GenerationSpec, Text

MAX_PROMPTS = 128
DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI's completions endpoint generates when no limit is given."""


class CompletionSpec(GenerationSpec):
    """A plain continuation of one prompt, or of up to 128."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
    echo: bool = False

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)

    @property
    def max_new_tokens(self) -> int:
        return self.max_tokens or DEFAULT_COMPLETION_TOKENS

    @property
    def result_count(self) -> int:
        return self.n * len(self.prompts)

    def estimated_input_tokens(self) -> int:
        return sum(len(prompt) for prompt in self.prompts) // 4

    def estimated_output_tokens(self, default: int) -> int:
        return self.max_new_tokens * self.n * len(self.prompts)
