"""The shapes of productions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.batch_objects import BatchEstimate
from api.fine_tuning_objects import TuningError
from api.objects import Page, Shape, UnixSeconds, Usage


class LabelCounts(Shape):
    """How many lines of a label there are of those that were asked for."""

    asked: int
    made: int


class ProductionSummary(Shape):
    """Counts of a production that has ended. Of the lines of its output, `succeeded`, `rejected`,
    `failed` and `not_found` together are all."""

    rows: Annotated[int, Field(description="Of the data")]
    items: Annotated[int, Field(description="Rows, each once for every audience")]
    candidates: Annotated[int, Field(description="Texts that items have, over all models")]
    lines: Annotated[int, Field(description="Of the output")]
    succeeded: int
    rejected: int
    rejected_by_gate: Annotated[dict[str, int], Field(description="Adds up to `rejected`")]
    failed: int
    failed_by_code: Annotated[dict[str, int], Field(description="Adds up to `failed`")]
    not_found: int
    rounds: Annotated[int, Field(description="Tries of the candidate that had most")]
    regenerated: Annotated[int, Field(description="Candidates that were asked again, each time")]
    refusals: Annotated[
        dict[str, int], Field(description="By gate, of all tries, also of those made good later")
    ]
    duplicates_removed: Annotated[int, Field(description="Refusals of `near_duplicates`")]
    input_tokens: int
    output_tokens: int
    labels: Annotated[
        dict[str, LabelCounts] | None, Field(description="Of training data that have labels")
    ] = None


class ProductionBatch(Shape):
    """The batch that runs for a production now; `GET /v1/batches/{id}` shows it."""

    id: str
    rows: int
    done: int


class Production(Shape):
    """A job that turns a template and a table into checked copy."""

    id: str
    object: Literal["production"]
    created_at: UnixSeconds
    started_at: UnixSeconds | None
    ended_at: UnixSeconds | None
    expires_at: UnixSeconds | None
    status: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    stopping: Annotated[bool, Field(description="Asked to stop, and not yet stopped")]
    version: Annotated[int, Field(description="Goes up with every change")]
    models: Annotated[list[str], Field(description="Whose candidates compete")]
    aliases: Annotated[dict[str, str], Field(description="Models that were named by an alias")]
    data_file_id: str | None
    output_format: Literal["csv", "jsonl", "parquet"]
    metadata: dict[str, str] | None
    priority: Annotated[int, Field(description="Among the tenant's own; 0 runs first, 9 last")]
    dry_run: bool
    rows: Annotated[int, Field(description="Of the data, once they were checked")]
    lines: Annotated[int, Field(description="That the output is to have")]
    kept: Annotated[int, Field(description="Lines of which that is certain")]
    round: Annotated[int, Field(description="0: the first try of all; then the retries")]
    phase: Annotated[int, Field(description="Of the round, from 0")]
    phases: Annotated[int, Field(description="Of each round: the template's steps and its body")]
    batch: ProductionBatch | None
    progress: Annotated[float, Field(ge=0, le=1)]
    queue_position: int | None = None
    usage: Usage
    error: TuningError | None
    output_file_id: str | None
    output_url: Annotated[str | None, Field(description="Redirects to the output's content")]
    summary: ProductionSummary | None
    estimate: Annotated[BatchEstimate | None, Field(description="Of a dry run, once it is valid")]


class ProductionList(Page):
    """A page of productions."""

    data: list[Production]


class ProductionMessage(Shape):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class ProductionPrompt(Shape):
    """What is asked for one step, and for the body at last."""

    step: Annotated[str | None, Field(description="null: the body")]
    messages: list[ProductionMessage]


class PreviewedItem(Shape):
    """A row, for one audience, and what would be asked for it. Texts of earlier steps, examples
    and sources that are looked up are not there yet: `[draft]` stands for the text of `draft`."""

    row: int
    audience: str | None
    columns: dict[str, Any]
    prompts: list[ProductionPrompt]
    error: Annotated[str | None, Field(description="Why nothing can be asked for it")]


class ProductionPreview(Shape):
    """The first rows of the data, rendered."""

    object: Literal["production.preview"]
    columns: list[str]
    output_columns: Annotated[list[str], Field(description="Behind those of the data")]
    models: list[str]
    candidates: Annotated[int, Field(description="Texts for each item, over all models")]
    data: list[PreviewedItem]
