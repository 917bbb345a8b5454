"""The shapes of monitors and their windows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.objects import Page, Shape, UnixSeconds
from api.schedule_objects import SourceShown


class MonitorWindowLength(Shape):
    """How long a window is; windows begin at whole multiples of it since 1970."""

    minutes: int


class MonitorError(Shape):
    """What went wrong last, until something goes well."""

    code: str
    message: str


class Monitor(Shape):
    """Texts that are watched."""

    id: str
    object: Literal["monitor"]
    created_at: UnixSeconds
    updated_at: UnixSeconds
    name: str
    status: Literal["active", "paused"]
    model: str
    label: str
    limit: float
    minimum: int
    window: MonitorWindowLength
    source: SourceShown | None
    column: str | None
    waiting: Annotated[int, Field(description="Texts that are not judged and counted yet")]
    batch_id: Annotated[str | None, Field(description="The batch that judges now")]
    error: MonitorError | None


class MonitorList(Page):
    """Monitors, newest first."""

    data: list[Monitor]


class MonitorWindow(Shape):
    """What was counted in one window."""

    id: str
    object: Literal["monitor.window"]
    monitor_id: str
    starts_at: UnixSeconds
    ends_at: UnixSeconds
    texts: Annotated[int, Field(description="That came")]
    judged: int
    failed: Annotated[int, Field(description="That no label was found for")]
    labels: Annotated[dict[str, int], Field(description="Judged texts, by label")]
    share: Annotated[
        float | None, Field(description="Of the watched label; null: nothing is judged")
    ]
    alerted_at: Annotated[UnixSeconds | None, Field(description="When `monitor.alert` was told")]


class MonitorWindowList(Page):
    """Windows with at least a text, newest first."""

    data: list[MonitorWindow]


class TextsAccepted(Shape):
    """Texts that wait to be judged."""

    object: Literal["monitor.texts"]
    monitor_id: str
    window_id: str
    accepted: int


class DeletedMonitor(Shape):
    """A monitor that is no more."""

    id: str
    object: Literal["monitor.deleted"]
    deleted: Literal[True]
