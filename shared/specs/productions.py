"""What a production is asked: a template, a table, and how its output is to look."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

KIND = "production"
"""Of its job."""
ENDPOINT = "/v1/productions"
OUTPUT_PURPOSE = "production_output"
"""Of the file that it leaves to its tenant …"""
INTERMEDIATE = "production_input"
"""… and of the inputs of its batches, which no list shows."""

MOST_TEMPLATE_BYTES = 256 * 1024
MOST_CANDIDATES = 16
OutputFormat = Literal["csv", "jsonl", "parquet"]
DataFormat = Literal["csv", "jsonl", "parquet"]

FIRST_ROUND = 0.9
"""How much of the work a round is taken to be, of what is left before it."""


class ReferencedFile(BaseModel):
    """A file that the template names. For as long as the job is open it stays: see
    ``shared.db.file_retention``."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    id: str
    filename: str


class ProductionSpec(BaseModel):
    """As it is stored with the job: the template whole, the rest decided."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    template: str
    data_format: DataFormat
    audience_format: DataFormat | None = None
    """Of the file of audiences, where the template names one."""
    examples_file: ReferencedFile | None = None
    documents: tuple[ReferencedFile, ...] = ()
    """Those of the template, in its order."""
    output_format: OutputFormat
    models: tuple[str, ...]
    """Names of those whose candidates compete, in the order of their numbers."""
    named: dict[str, str]
    """The model that each name in the template stood for when the production was accepted."""
    n: Annotated[int, Field(ge=1, le=MOST_CANDIDATES)]
    """Candidates of each model."""
    sampling: dict[str, Any] = {}
    """Comes before the template's own."""
    priority: int = 0
    dry_run: bool = False
    output_seconds: float | None = None
    """Life of the output; None: as long as a batch's."""


def progress_at(round_number: int, share: float) -> float:
    """0 to 1, with ``share`` of the round done; it never goes down."""
    left: float = (1 - FIRST_ROUND) ** round_number
    return 1 - left + left * FIRST_ROUND * share
