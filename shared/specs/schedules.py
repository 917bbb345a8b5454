"""What a schedule is asked: where rows come from, how often, and what is made of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.recurrence import MOST_HOURS, Recurrence, read_zone
from shared.specs.productions import (
    MOST_CANDIDATES,
    MOST_TEMPLATE_BYTES,
    OutputFormat,
    ReferencedFile,
)

KIND = "schedule"
MOST_SCHEDULES = 100
"""Of one tenant."""
MOST_KEPT_RUNS = 100
"""Of one schedule; older ones are forgotten."""
MOST_NEW_ROWS = 100_000
"""Of one run."""
MOST_REMEMBERED = 200_000
"""Rows that are no longer in the source and still known, of one source."""
MOST_DAYS_REMEMBERED = 3_650
PAUSED_BY_TENANT, PAUSED_BY_FAILURES = "by_tenant", "failures"
PAUSED_BY_READERS = "readers_lost"
MOST_LOST_READERS = 3
"""In a row, of one source. Fewer than a shard may lose workers: what a source costs those beside
it, in the same process, they survive."""
SOURCE_UNREADABLE = "source_unreadable"

FeedFormat = Literal["rss", "atom", "json_feed", "csv", "jsonl"]
Column = Annotated[str, Field(min_length=1, max_length=200)]
Key = Annotated[list[Column], Field(min_length=1, max_length=16)]
_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
Clock = Annotated[str, Field(pattern=_CLOCK)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class FeedSource(_Part):
    """Where rows come from: a URL, or a folder of the operators'."""

    url: (
        Annotated[str, Field(min_length=1, max_length=2_048, description="https, of a public host")]
        | None
    ) = None
    folder: (
        Annotated[
            str,
            Field(
                pattern=r"^[a-z][a-z0-9_-]{0,31}(/[A-Za-z0-9_][A-Za-z0-9._ -]{0,99}){0,8}$",
                description="The name of a root that operators have given, and perhaps a path in "
                "your own folder there: `drop/news`",
            ),
        ]
        | None
    ) = None
    format: Annotated[FeedFormat | None, Field(description="Told by what comes, if left out")] = (
        None
    )

    @model_validator(mode="after")
    def _one_place(self) -> FeedSource:
        if (self.url is None) == (self.folder is None):
            raise ValueError("give either 'url' or 'folder'")
        return self


class EveryHours(_Part):
    """So many hours lie between two runs."""

    hours: Annotated[int, Field(ge=1, le=MOST_HOURS)] | None
    """None: a day of the time zone, however long it is."""


def _spelled_out(value: Any) -> Any:
    if value == "day":
        return {"hours": None}
    if value == "hour":
        return {"hours": 1}
    if not isinstance(value, dict) or value.get("hours", 1) is None:
        raise ValueError("it is 'hour', 'day' or an object with 'hours'")
    return value


class _Hours(_Part):
    hours: Annotated[int, Field(ge=1, le=MOST_HOURS)]


Every = Annotated[
    EveryHours,
    BeforeValidator(_spelled_out, json_schema_input_type=Literal["hour", "day"] | _Hours),
    Field(description="How often"),
]


class ScheduleSpec(_Part):
    """As it is stored: what each of its productions is made of."""

    template: Annotated[str, Field(min_length=1, max_length=MOST_TEMPLATE_BYTES)]
    source: FeedSource
    every_hours: Annotated[int, Field(ge=1, le=MOST_HOURS)] | None = None
    """Between two runs; None: a day."""
    at: Clock
    timezone: str
    key: Key | None = None
    """Columns that make a row the same as another; None: its id in a feed, all of a table."""
    max_rows: Annotated[int, Field(ge=1, le=MOST_NEW_ROWS)]
    remember_days: Annotated[int, Field(ge=1, le=MOST_DAYS_REMEMBERED)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CANDIDATES)]
    sampling: dict[str, Any] = {}
    examples_file: ReferencedFile | None = None
    documents: list[ReferencedFile] = []
    """Files that the template names, to look things up in."""
    output_format: OutputFormat = "csv"
    output_seconds: float | None = None
    expires_in_seconds: float | None = None
    metadata: dict[str, str] | None = None
    priority: int = 0


def recurrence_of(spec: ScheduleSpec) -> Recurrence:
    """Raises ValueError for a time zone that there is not."""
    hour, _, minute = spec.at.partition(":")
    return Recurrence(spec.every_hours, (int(hour), int(minute)), read_zone(spec.timezone))


def clock_of(moment: datetime, timezone: str) -> str:
    """The time of day at ``moment``, as ``at`` is written. Raises ValueError."""
    return f"{moment.astimezone(read_zone(timezone)):%H:%M}"
