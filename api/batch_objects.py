"""The shapes of batches: OpenAI's members, and beside them ours."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.job_objects import QuotaEstimate
from api.objects import BatchErrors, Page, Shape, UnixSeconds, Usage


class RequestCounts(Shape):
    """Rows of a batch."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(Shape):
    """Of the input tokens."""

    cached_tokens: int


class OutputTokensDetails(Shape):
    """Of the output tokens."""

    reasoning_tokens: int


class BatchUsage(Usage):
    """Tokens that a batch consumed."""

    input_tokens_details: InputTokensDetails
    output_tokens_details: OutputTokensDetails


class BatchCommonestError(Shape):
    """What most of a batch's failed rows failed with."""

    code: str
    count: int
    message: Annotated[str | None, Field(description="What the first of them said")]


class BatchCalls(Shape):
    """Rows of one endpoint and model."""

    endpoint: str
    model: str
    rows: int


class BatchCost(Shape):
    """By the catalog's prices."""

    currency: str
    expected: float | None = None
    at_most: float | None = None


class BatchEstimate(Shape):
    """What a batch would take. What nothing tells is left out."""

    rows: int
    slices: Annotated[int, Field(description="That would run side by side")]
    calls: list[BatchCalls]
    input_tokens: int | None = None
    output_tokens: int | None = None
    max_output_tokens: int | None = None
    cost: BatchCost | None = None
    is_possible: Annotated[bool, Field(description="Whether workers serve all pools now")]
    estimated_start: UnixSeconds | None = None
    quotas: QuotaEstimate
    basis: Annotated[list[str], Field(description="How each number was found")]


class Batch(Shape):
    """An OpenAI batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    models: Annotated[
        dict[str, str],
        Field(description="What all rows mean by each alias that they name, once validated"),
    ]
    completion_window: str
    status: Literal[
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: UnixSeconds
    in_progress_at: UnixSeconds | None
    expires_at: UnixSeconds | None
    finalizing_at: UnixSeconds | None
    completed_at: UnixSeconds | None
    failed_at: UnixSeconds | None
    expired_at: UnixSeconds | None
    cancelling_at: UnixSeconds | None
    cancelled_at: UnixSeconds | None
    request_counts: RequestCounts
    usage: BatchUsage | None
    metadata: dict[str, str] | None
    model: Annotated[str | None, Field(description="That all rows name, once validated")]
    priority: Annotated[int, Field(description="Among the tenant's own; 0 runs first, 9 last")]
    succeeded: Annotated[int, Field(description="Rows; 0 of a completed batch: all failed")]
    commonest_error: Annotated[
        BatchCommonestError | None, Field(description="Once it has ended with failed rows")
    ]
    retry_of: Annotated[str | None, Field(description="The batch whose rows these are")]
    dry_run: bool
    estimate: Annotated[BatchEstimate | None, Field(description="Of a dry run, once it is valid")]


class BatchList(Page):
    """A page of batches."""

    data: list[Batch]
