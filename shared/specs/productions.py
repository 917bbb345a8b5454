"""What a production is asked: a template, a table, and how its output is to look."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

KIND = "production"
"""Of its job."""
ENDPOINT = "/v1/productions"
OUTPUT_PURPOSE = "production_output"
"""Of the file that it leaves to its tenant …"""
INTERMEDIATE = "production_input"
"""… and of the inputs of its batches, which no list shows."""

MOST_TEMPLATE_BYTES = 256 * 1024
OutputFormat = Literal["csv", "jsonl", "parquet"]
DataFormat = Literal["csv", "jsonl", "parquet"]

CANCELLED_BATCH = "batch_cancelled"
EXPIRED_BATCH = "batch_expired"
FAILED_BATCH = "batch_failed"
"""Why a production ends early that nobody has asked to: what became of its batch."""


class Sampling(BaseModel):
    """How texts are drawn; a step's own come first, then the template's, then these."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None


class ProductionSpec(BaseModel):
    """As it is stored with the job: the template whole, the rest decided."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    template: str
    data_format: DataFormat
    output_format: OutputFormat
    models: tuple[str, ...]
    """Whose candidates compete; ids, aliases looked up when the production was accepted."""
    n: int | None = None
    """Candidates of each model; None: the template's."""
    sampling: Sampling | None = None
    dry_run: bool = False
    output_seconds: float | None = None
    """Life of the output; None: as long as a batch's."""
