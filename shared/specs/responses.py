"""``/v1/responses``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.errors import InvalidRequest, UnsupportedParameter
from shared.specs.chat import MAX_MESSAGES, MAX_TOP_LOGPROBS
from shared.specs.common import MAX_NEW_TOKENS, InferenceSpec, Text, check_logprobs
from shared.specs.formats import ResponseTextFormat

MAX_PARTS = 256
MAX_LABELS = 16
LOGPROBS = "message.output_text.logprobs"
"""What is included with the text; the other names are of things that no answer here has."""

Included = Literal[
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
]

Label = Annotated[str, Field(max_length=64)]
LabelValue = Annotated[str, Field(max_length=512)]


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class ResponsePart(_Known):
    """A text of a turn: what was said to the model, or what it said."""

    type: Literal["input_text", "output_text"]
    text: Text
    annotations: Annotated[list[Any], Field(max_length=0)] = []
    """As answers have it, so that their items can be sent back as they are …"""
    logprobs: Annotated[list[Any], Field(max_length=MAX_NEW_TOKENS)] = []
    """… and nothing is read of."""


def _as_parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


_PartList = Annotated[list[ResponsePart], Field(min_length=1, max_length=MAX_PARTS)]
Parts = Annotated[_PartList, BeforeValidator(_as_parts, json_schema_input_type=Text | _PartList)]


class ResponseItem(_Known):
    """One turn."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts
    id: Annotated[str, Field(max_length=256)] | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content)


def _as_items(asked: Any) -> Any:
    return [{"role": "user", "content": asked}] if isinstance(asked, str) else asked


_ItemList = Annotated[list[ResponseItem], Field(min_length=1, max_length=MAX_MESSAGES)]
Items = Annotated[_ItemList, BeforeValidator(_as_items, json_schema_input_type=Text | _ItemList)]


class ResponseText(_Known):
    """How the text of the answer is to look."""

    format: ResponseTextFormat | None = None


class ResponseStreamOptions(_Known):
    """How a stream is told."""

    include_obfuscation: Literal[False] = False
    """Nothing is added to hide how long the pieces are."""


class ResponseSpec(InferenceSpec):
    """A turn of a conversation in, one reply out, kept under an id of its own."""

    input: Items
    instructions: Text | None = None
    """Read before all else; not carried on to the next response."""
    previous_response_id: Annotated[str, Field(max_length=64)] | None = None
    """The response whose turns, and whose answer, come before ``input``."""
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    metadata: Annotated[dict[Label, LabelValue], Field(max_length=MAX_LABELS)] | None = None
    text: ResponseText | None = None
    include: Annotated[list[Included], Field(max_length=16)] = []
    """What else the answer has."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """How many of the likeliest tokens are told beside each."""
    background: bool = False
    """Answer at once: the response is fetched when it is done."""
    store: Literal[True] = True
    """Every response is kept until it is deleted."""
    truncation: Literal["disabled"] = "disabled"
    stream: bool = False
    """Of a call: its events are told as they happen. Refused everywhere else."""
    stream_options: ResponseStreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data

    @property
    def alternatives(self) -> int | None:
        """As that of a chat completion."""
        return (self.top_logprobs or 0) if LOGPROBS in self.include else None

    def check_body(self) -> None:
        if self.top_logprobs and self.alternatives is None:
            message = f"'top_logprobs' needs '{LOGPROBS}' in 'include'"
            raise InvalidRequest(message, param="top_logprobs")
        if self.alternatives is not None and self.max_output_tokens is not None:
            check_logprobs(self.alternatives, self.max_output_tokens, "top_logprobs")
        if self.text is not None and self.text.format is not None:
            self.text.format.check("text.format")

    def check_row(self) -> None:
        for name in ("previous_response_id", "background"):
            if getattr(self, name):
                message = f"'{name}' is for calls, not for the rows of a batch"
                raise UnsupportedParameter(message, param=name)

    def estimated_input_tokens(self) -> int:
        texts = [self.instructions or "", *(item.text for item in self.input)]
        return sum(map(len, texts)) // 4 + 4 * len(texts)

    def estimated_output_tokens(self, default: int) -> int:
        return self.max_output_tokens or default
