"""The shapes of responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.objects import Page, Shape, UnixSeconds, Usage


class LikelyToken(Shape):
    """A token, and the natural logarithm of the probability that the model gave it."""

    token: Annotated[str, Field(description="As text; `\\xe2` stands for a byte that is none")]
    bytes: list[int]
    logprob: float


class TokenLogprob(LikelyToken):
    """A token of a text, and the likeliest at its place."""

    top_logprobs: list[LikelyToken]


class ResponseTextPart(Shape):
    """A text of a turn; `annotations` only on what a model said, `logprobs` where `include` asks
    for them."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[str] = Field(default_factory=list, max_length=0)
    logprobs: list[TokenLogprob] | None = None


class ResponseRefusal(Shape):
    """Why there is no answer: what the model said does not satisfy the schema asked for."""

    type: Literal["refusal"]
    refusal: str


class ResponseMessage(Shape):
    """One turn."""

    id: str
    type: Literal["message"]
    role: Literal["user", "assistant", "system", "developer"]
    status: Literal["completed", "incomplete"]
    content: list[ResponseTextPart | ResponseRefusal]


class ResponseError(Shape):
    """Why a response failed."""

    code: Annotated[
        Literal["server_error", "invalid_prompt"],
        Field(description="`invalid_prompt` where something of the request is at fault"),
    ]
    type: Annotated[str, Field(description="The job's own, more telling code")]
    message: str
    param: str | None


class IncompleteDetails(Shape):
    """Why an answer ends early."""

    reason: Literal["max_output_tokens"]


class ResponseInputTokens(Shape):
    """Of the input tokens."""

    cached_tokens: int
    cache_write_tokens: int


class ResponseOutputTokens(Shape):
    """Of the output tokens."""

    reasoning_tokens: int


class ResponseUsage(Usage):
    """Tokens that a response consumed."""

    input_tokens_details: ResponseInputTokens
    output_tokens_details: ResponseOutputTokens


class ResponseFormatShown(Shape):
    """As it was asked for; `name` and `schema` only of the type `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None


class ResponseTextShown(Shape):
    """How the answer looks."""

    format: ResponseFormatShown


class ResponseObject(Shape):
    """An OpenAI response."""

    id: str
    object: Literal["response"]
    created_at: UnixSeconds
    completed_at: UnixSeconds | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    output: list[ResponseMessage]
    usage: ResponseUsage | None
    instructions: str | None
    previous_response_id: str | None
    max_output_tokens: int | None
    temperature: float
    top_p: float
    metadata: dict[str, str]
    background: bool
    user: str | None
    parallel_tool_calls: Literal[False]
    tool_choice: Literal["none"]
    tools: Annotated[list[str], Field(max_length=0)]
    store: Literal[True]
    text: ResponseTextShown
    truncation: Literal["disabled"]
    top_logprobs: int = 0


class ResponseItemList(Page):
    """A page of what a response was made of."""

    data: list[ResponseMessage]


class DeletedResponse(Shape):
    """A response that is gone."""

    id: str
    object: Literal["response.deleted"]
    deleted: Literal[True]
