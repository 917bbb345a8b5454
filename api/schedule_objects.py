"""The shapes of schedules and their runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.objects import Page, Shape, UnixSeconds
from shared.specs.schedules import EveryHours, FeedFormat


class SourceShown(Shape):
    """Where rows come from: one of `url` and `folder`."""

    url: str | None
    folder: str | None
    format: FeedFormat | None


class RunError(Shape):
    """Why a run failed."""

    code: str
    message: str


class Schedule(Shape):
    """Productions that come again."""

    id: str
    object: Literal["schedule"]
    created_at: UnixSeconds
    updated_at: UnixSeconds
    name: str
    status: Literal["active", "paused"]
    paused_reason: Annotated[
        Literal["by_tenant", "failures", "readers_lost"] | None,
        Field(description="Why it is paused"),
    ]
    source: SourceShown
    every: Literal["hour", "day"] | EveryHours
    at: Annotated[str, Field(description="Time of day in `timezone`")]
    timezone: str
    next_run_at: Annotated[
        UnixSeconds | None, Field(description="When it is due; null while it is paused")
    ]
    run_asked: Annotated[bool, Field(description="To run once, as soon as no run is open")]
    open_run_id: Annotated[str | None, Field(description="The run that has not ended")]
    failures: Annotated[int, Field(description="Runs that failed, since one did not")]
    error: Annotated[
        RunError | None, Field(description="Of the last run that failed, since one did not")
    ]
    key: list[str] | None
    max_rows: int
    remember_days: int
    model: str | None
    n: int
    output_format: Literal["csv", "jsonl", "parquet"]
    metadata: dict[str, str] | None
    priority: int


class ScheduleList(Page):
    """Schedules, newest first."""

    data: list[Schedule]


class BadRowShown(Shape):
    """A row of a source that was left out."""

    code: str
    message: str
    line: int | None
    param: str | None


class ScheduleRun(Shape):
    """One run of a schedule."""

    id: str
    object: Literal["schedule.run"]
    schedule_id: str
    created_at: UnixSeconds
    ended_at: UnixSeconds | None
    status: Annotated[
        Literal["reading", "producing", "succeeded", "unchanged", "failed", "cancelled"],
        Field(description="`unchanged`: nothing was new, so there is no production"),
    ]
    manual: Annotated[bool, Field(description="It was asked for, and not due")]
    rows_found: Annotated[int, Field(description="In the source; 0 also if it said `unchanged`")]
    rows_new: Annotated[int, Field(description="That went into the production")]
    rows_left: Annotated[int, Field(description="New ones over `max_rows`, for the next run")]
    rows_bad: Annotated[int, Field(description="That could not be used")]
    bad_rows: Annotated[list[BadRowShown], Field(description="The first of them, and why")]
    lines_kept: Annotated[int, Field(description="Of the production, once it has ended")]
    lines_failed: int
    production_id: str | None
    error: RunError | None


class ScheduleRunList(Page):
    """Runs of a schedule, newest first; the last hundred are kept."""

    data: list[ScheduleRun]


class DeletedSchedule(Shape):
    """A schedule that is no more."""

    id: str
    object: Literal["schedule.deleted"]
    deleted: Literal[True]
