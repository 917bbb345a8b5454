"""The bodies of calls about monitors, and from one to a monitor."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api import parsing
from api.idempotency import Once
from api.requests import Name, RequestBody
from api.schedule_requests import require_source
from api.services import Services
from api.webhook_requests import WebhookMember, job_webhook
from shared import lifecycle
from shared.db.aliases import hold_named
from shared.db.monitors import MonitorRow, get_monitor
from shared.errors import InvalidRequest, ModelNotFound, NotFound
from shared.ids import new_monitor_id
from shared.lifecycle import NewMonitor
from shared.specs.monitors import (
    DEFAULT_MINIMUM,
    ENDPOINT,
    LEAST_MINUTES,
    MOST_MINUTES,
    MOST_TEXTS_A_CALL,
    Label,
    MonitoredText,
)
from shared.specs.schedules import Column, FeedSource
from shared.translation import serves

NOTHING = "there is no such monitor"


class WindowBody(RequestBody):
    """How long a window is."""

    minutes: Annotated[int, Field(ge=LEAST_MINUTES, le=MOST_MINUTES)]


class MonitorRequest(RequestBody):
    """Texts to be watched: those of a source, those that are posted, or both."""

    name: Name
    model: Annotated[Name, Field(description="Serves `/v1/classifications`; may be an alias")]
    label: Annotated[Label, Field(description="Whose share of a window's texts is watched")]
    limit: Annotated[
        float, Field(ge=0, lt=1, description="Told of when the label's share is over it")
    ]
    minimum: Annotated[
        int, Field(ge=1, le=1_000_000, description="Judged texts that a window needs for that")
    ] = DEFAULT_MINIMUM
    window: WindowBody
    source: Annotated[
        FeedSource | None, Field(description="Read once a window; left out: texts are posted")
    ] = None
    column: Annotated[
        Column | None,
        Field(description="Of the source; else its title, summary, content and text together"),
    ] = None
    webhook: WebhookMember = None


class TextsRequest(RequestBody):
    """Texts that have come in."""

    texts: Annotated[list[MonitoredText], Field(min_length=1, max_length=MOST_TEXTS_A_CALL)]


def make_monitor(services: Services, tenant_id: str, asked: MonitorRequest, once: Once) -> str:
    """Makes a monitor and returns its id. Raises ModelNotFound, UrlNotAllowed, Conflict for one
    too many, InvalidRequest or a subclass."""
    for name, value in (("name", asked.name), ("label", asked.label), ("column", asked.column)):
        parsing.plain_text(value or "", name)
    if asked.source is not None:
        require_source(services, asked.source)
    elif asked.column is not None:
        raise InvalidRequest("'column' goes with 'source'", param="column")
    webhook = job_webhook(services, tenant_id, asked.webhook)
    source = asked.source
    new = NewMonitor(
        monitor_id=new_monitor_id(),
        tenant_id=tenant_id,
        name=asked.name,
        model=asked.model,
        label=asked.label,
        limit=asked.limit,
        minimum=asked.minimum,
        window_seconds=asked.window.minutes * 60,
        source=None if source is None else source.model_dump(exclude_none=True),
        text_column=asked.column,
        webhook=webhook,
    )
    with services.transaction() as connection:
        model = hold_named(connection, tenant_id, asked.model) if _printable(asked) else None
        if model is None or not serves(model.endpoints, ENDPOINT):
            message = f"there is no model {asked.model!r} that serves {ENDPOINT}"
            raise ModelNotFound(message, param="model")
        lifecycle.create_monitor(connection, new)
        once.made(connection, tenant_id, new.monitor_id)
    return new.monitor_id


def find_monitor(services: Services, tenant_id: str, monitor_id: str) -> MonitorRow:
    """Raises NotFound."""
    parsing.one_id(monitor_id, "monitor")
    with services.autocommit.connect() as connection:
        row = get_monitor(connection, tenant_id, monitor_id)
    if row is None:
        raise NotFound(NOTHING)
    return row


def _printable(asked: MonitorRequest) -> bool:
    return asked.model.isprintable()
