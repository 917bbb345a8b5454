"""The bodies of calls about schedules, and from one to a schedule: template, models and source are
looked at before it is accepted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api import parsing
from api.idempotency import Once
from api.limits import DEFAULT_PRIORITY, MAX_DEADLINE_SECONDS
from api.production_requests import (
    ProductionRequest,
    SamplingBody,
    read_template,
)
from api.requests import ExpiresAfter, Metadata, Name, RequestBody
from api.services import Services
from api.webhook_requests import WebhookMember, allowed_hosts, job_webhook
from shared import lifecycle
from shared.db.schedules import ScheduleRow, get_schedule
from shared.egress import parse_target
from shared.errors import InvalidRequest, NotFound
from shared.feed_roots import parse_roots
from shared.ids import new_schedule_id
from shared.lifecycle import NewSchedule
from shared.lifecycle.production_names import References, hold_models, hold_references
from shared.recurrence import read_zone
from shared.specs.productions import MOST_CANDIDATES, MOST_TEMPLATE_BYTES, OutputFormat
from shared.specs.schedules import (
    MOST_DAYS_REMEMBERED,
    MOST_NEW_ROWS,
    Clock,
    Every,
    FeedSource,
    Key,
    ScheduleSpec,
)

MOST_LABELS = 15
"""Of the 16 that a production may have, one names its schedule."""
NOTHING = "there is no such schedule"


class ScheduleRequest(RequestBody):
    """Productions that come again, of what is new in a source."""

    name: Name
    template: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MOST_TEMPLATE_BYTES,
            description="As of a production",
        ),
    ]
    source: FeedSource
    every: Every
    at: Annotated[
        Clock | None,
        Field(description="`07:30`: of each day, or first; left out: from now on"),
    ] = None
    timezone: Annotated[
        str, Field(min_length=1, max_length=64, description="Of `at`: `Europe/Berlin`")
    ] = "UTC"
    key: Annotated[
        Key | None,
        Field(description="Columns that make a row known; a feed's `id`, or all of a table"),
    ] = None
    max_rows: Annotated[
        int, Field(ge=1, le=MOST_NEW_ROWS, description="Of one run; the rest waits for the next")
    ] = 10_000
    remember_days: Annotated[
        int,
        Field(
            ge=1,
            le=MOST_DAYS_REMEMBERED,
            description="A row that was out of the source so long is new again",
        ),
    ] = 90
    model: Name | None = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CANDIDATES)] = None
    sampling: SamplingBody | None = None
    output_format: OutputFormat = "csv"
    output_expires_after: ExpiresAfter | None = None
    expires_in_seconds: (
        Annotated[float, Field(gt=0, le=MAX_DEADLINE_SECONDS, description="Of each production")]
        | None
    ) = None
    metadata: Metadata | None = None
    priority: Annotated[int, Field(ge=0, le=9, description="Lower runs first")] = DEFAULT_PRIORITY
    webhook: WebhookMember = None


def make_schedule(services: Services, tenant_id: str, asked: ScheduleRequest, once: Once) -> str:
    """Makes a schedule and returns its id. Raises ModelNotFound, NotFound, UrlNotAllowed, Conflict
    for one too many, InvalidRequest or a subclass."""
    parsing.plain_text(asked.name, "name")
    require_source(services, asked.source)
    _require_terms(asked)
    read = read_template(_like_a_production(asked))
    webhook = job_webhook(services, tenant_id, asked.webhook)
    schedule_id = new_schedule_id()
    with services.transaction() as connection:
        head = read.template.head
        hold_models(connection, tenant_id, read.models, head)
        references = hold_references(connection, tenant_id, head)
        new = NewSchedule(
            schedule_id=schedule_id,
            tenant_id=tenant_id,
            name=asked.name,
            spec=_spec(asked, read.n, references),
            file_ids=references.file_ids,
            starts_now=asked.at is None,
            webhook=webhook,
        )
        lifecycle.create_schedule(connection, new)
        once.made(connection, tenant_id, schedule_id)
    return schedule_id


def require_source(services: Services, source: FeedSource) -> None:
    """Raises UrlNotAllowed for a URL that is never asked, and InvalidRequest for a root that
    operators have not given. Names are not resolved here."""
    if source.url is not None:
        allowed = allowed_hosts(services.settings.feed_allowed_hosts)
        parse_target(source.url, allowed, param="source.url")
    elif (source.folder or "").partition("/")[0] not in parse_roots(services.settings.feed_folders):
        raise InvalidRequest("operators have given no such root", param="source.folder")


def find_schedule(services: Services, tenant_id: str, schedule_id: str) -> ScheduleRow:
    """Raises NotFound."""
    parsing.one_id(schedule_id, "schedule")
    with services.autocommit.connect() as connection:
        row = get_schedule(connection, tenant_id, schedule_id)
    if row is None:
        raise NotFound(NOTHING)
    return row


def _require_terms(asked: ScheduleRequest) -> None:
    """Raises InvalidRequest."""
    try:
        read_zone(asked.timezone)
    except ValueError as error:
        raise InvalidRequest(f"'timezone': {error}", param="timezone") from None
    if len(asked.metadata or {}) > MOST_LABELS:
        message = f"a schedule has at most {MOST_LABELS} labels: one more names it"
        raise InvalidRequest(message, param="metadata")
    if len(set(asked.key or [])) < len(asked.key or []):
        raise InvalidRequest("'key' names a column twice", param="key")


def _like_a_production(asked: ScheduleRequest) -> ProductionRequest:
    """For those who read the template of one."""
    return ProductionRequest(template=asked.template, data_file_id="", model=asked.model, n=asked.n)


def _spec(asked: ScheduleRequest, n: int, references: References) -> ScheduleSpec:
    life = asked.output_expires_after
    return ScheduleSpec(
        template=asked.template,
        source=asked.source,
        every_hours=asked.every.hours,
        at=asked.at or "00:00",
        timezone=asked.timezone,
        key=asked.key,
        max_rows=asked.max_rows,
        remember_days=asked.remember_days,
        model=asked.model,
        n=n,
        sampling=asked.sampling.model_dump(exclude_none=True) if asked.sampling else {},
        examples_file=references.examples,
        documents=list(references.documents),
        output_format=asked.output_format,
        output_seconds=life.seconds if life else None,
        expires_in_seconds=asked.expires_in_seconds,
        metadata=asked.metadata,
        priority=asked.priority,
    )
