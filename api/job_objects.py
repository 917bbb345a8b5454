"""The shapes of what the job API answers besides jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel

from api.objects import Job, Page, Shape, UnixSeconds


class Event(Shape):
    """Something that happened to a job."""

    id: str
    object: Literal["job.event"]
    type: str
    created_at: UnixSeconds
    data: dict[str, Any]


class EventList(Page):
    """A page of events."""

    data: list[Event]


class JobPoll(Shape):
    """Many jobs at once, in no particular order."""

    object: Literal["job.poll"]
    data: Annotated[
        list[Job], Field(description="Without results and places in line: ask for those by id")
    ]
    unchanged: Annotated[
        list[str],
        Field(description="Still at the version that the caller knows, as they were named"),
    ]
    missing: Annotated[list[str], Field(description="There are no such jobs, as they were named")]


class JobResult(RootModel[Any]):
    """The response body of the job's endpoint."""

    model_config = ConfigDict(defer_build=True)

    root: dict[str, Any]


class CostEstimate(Shape):
    """By the prices of the catalog."""

    currency: str
    expected: Annotated[float, Field(description="Going by what such calls took lately")] | None = (
        None
    )
    at_most: float | None = None
    basis: str


class QuotaRefusal(Shape):
    """Why a tenant's quotas or budgets would not take the work."""

    code: str
    message: str
    param: Annotated[str | None, Field(description="The quota")]


class QuotaEstimate(Shape):
    """Whether the caller's quotas and budgets would take the work at this moment."""

    is_accepted: bool
    error: QuotaRefusal | None = None


class JobEstimate(Shape):
    """What a job would take, had it been accepted. What nothing tells is left out."""

    object: Literal["job.estimate"]
    dry_run: Literal[True]
    kind: str
    endpoint: str
    model: str
    pool: str
    rows: Annotated[int, Field(description="Rows, or steps of a graph")]
    steps: dict[str, int] | None = Field(
        default=None, description="Of a graph: how many of each endpoint"
    )
    input_tokens: Annotated[int, Field(description="Estimated; `basis` says how")] | None = None
    output_tokens: Annotated[int, Field(description="Expected: the mean of such calls")] | None = (
        None
    )
    max_output_tokens: Annotated[int, Field(description="What the body allows")] | None = None
    basis: Annotated[list[str], Field(description="Where each number comes from")]
    cost: CostEstimate | None = None
    quotas: QuotaEstimate
    estimated_start: int | None = None
    eta_seconds: int | None = None
    is_possible: Annotated[
        bool, Field(description="Whether a worker serves every pool that it needs at this moment")
    ]


class JobOrEstimate(RootModel[Any]):
    """The job that was there already, or is done; with `dry_run`, what it would take."""

    # With its members as the type's parameter, all their schemas would be built by the import.
    model_config = ConfigDict(defer_build=True)

    root: Job | JobEstimate
