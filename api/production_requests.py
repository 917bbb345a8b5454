"""From a body to a queued production: template, models and data are looked at before it is
accepted, as far as that takes no pass over the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from flask import request
from pydantic import Field
from sqlalchemy import Connection

from api import parsing
from api.deadlines import deadline_seconds
from api.idempotency import Once
from api.limits import DEFAULT_PRIORITY, MAX_DEADLINE_SECONDS
from api.requests import ExpiresAfter, Metadata, Name, RequestBody
from api.services import Services
from api.webhook_requests import WebhookMember, job_webhook
from shared import lifecycle
from shared.db.files import FileRow, hold_file
from shared.errors import InvalidRequest, NotFound
from shared.ids import new_production_id
from shared.lifecycle import NewProduction
from shared.lifecycle.production_names import (
    References,
    format_of,
    hold_models,
    hold_references,
)
from shared.pools import UPKEEP
from shared.specs.productions import (
    MOST_CANDIDATES,
    MOST_TEMPLATE_BYTES,
    DataFormat,
    ProductionSpec,
)

if TYPE_CHECKING:
    from shared.productions.template import Template

MOST_NEW_TOKENS = 131_072
MOST_PREVIEWED = 20

FileId = Annotated[str, Field(max_length=256)]


class SamplingBody(RequestBody):
    """How texts are drawn; what is given here comes before the template's own."""

    max_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class _About(RequestBody):
    template: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MOST_TEMPLATE_BYTES,
            description="The whole file: a YAML head between `---` lines, and the prompt",
        ),
    ]
    data_file_id: Annotated[FileId, Field(description="A table of yours: CSV, JSONL or Parquet")]
    data_format: Annotated[
        DataFormat | None, Field(description="Told by the file's name, if left out")
    ] = None
    model: Annotated[
        Name | None, Field(description="Writes the copy, where the template names none")
    ] = None
    n: Annotated[
        int | None,
        Field(ge=1, le=MOST_CANDIDATES, description="Candidates of each model; the template's"),
    ] = None
    sampling: SamplingBody | None = None
    output_format: Literal["csv", "jsonl", "parquet"] = "csv"


class ProductionRequest(_About):
    """A production: for each row of a table, checked copy by a template."""

    metadata: Metadata | None = None
    priority: Annotated[int, Field(ge=0, le=9, description="Lower runs first")] = DEFAULT_PRIORITY
    expires_in_seconds: (
        Annotated[
            float, Field(gt=0, le=MAX_DEADLINE_SECONDS, description="Give up after this long")
        ]
        | None
    ) = None
    expires_at: (
        Annotated[
            float | Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})],
            Field(description="Give up then: Unix seconds, or a time by RFC 3339"),
        ]
        | None
    ) = None
    output_expires_after: Annotated[
        ExpiresAfter | None, Field(description="Of the file that it makes; 30 days")
    ] = None
    dry_run: Annotated[
        bool, Field(description="Check template and data, say what it would take, write nothing")
    ] = False
    webhook: WebhookMember = None


class PreviewRequest(_About):
    """A look at what a production would ask for."""

    rows: Annotated[int, Field(ge=1, le=MOST_PREVIEWED, description="The first ones")] = 5


@dataclass(frozen=True, slots=True)
class Read:
    """A template, and what it means for this tenant."""

    template: Template
    models: tuple[str, ...]
    n: int


def submit_production(
    services: Services, tenant_id: str, asked: ProductionRequest, once: Once
) -> str:
    """Queues the production and rings; returns its id.

    Raises NotFound for the data, ModelNotFound, InvalidRequest or a subclass about the template
    or its terms.
    """
    read = read_template(asked)
    seconds = deadline_seconds(request, asked.expires_in_seconds, asked.expires_at)
    webhook = job_webhook(services, tenant_id, asked.webhook)
    production_id = new_production_id()
    with services.transaction() as connection:
        head = read.template.head
        named = hold_models(connection, tenant_id, read.models, head)
        held = hold_references(connection, tenant_id, head)
        file = hold_data(connection, tenant_id, asked.data_file_id)
        aliases = {name: model for name, model in named.items() if name != model}
        spec = _spec(asked, read, named, file, held)
        new = NewProduction(
            job_id=production_id,
            tenant_id=tenant_id,
            spec=spec.model_dump_json(exclude_none=True),
            models=[named[name] for name in read.models] + sorted(named.values()),
            data_file_id=file.id,
            audience_file_id=held.audiences.id if held.audiences else None,
            detail={"aliases": aliases} if aliases else {},
            metadata=asked.metadata,
            priority=asked.priority,
            expires_in_seconds=seconds,
        )
        window = services.settings.ready_window
        lifecycle.submit_production(connection, new, window=window, idempotency=once.for_submit())
        lifecycle.attach_webhook(connection, production_id, webhook)
    services.bell.ring(UPKEEP)
    return production_id


def read_template(asked: _About) -> Read:
    """Raises InvalidRequest or a subclass that names the template's key and line."""
    # Here: few processes ever read one, and Jinja and YAML cost every start.
    from shared.productions.template import parse_template

    template = parse_template(asked.template)
    n = asked.n or template.head.n
    models = template.models(asked.model)
    if template.head.best_of is not None and n * len(models) == 1:
        raise InvalidRequest("best_of: it needs 'n' over 1, or 'models'", param="n")
    if _makes_training_data(template):
        _check_training_data(asked, template, n * len(models))
    return Read(template, models, n)


def _makes_training_data(template: Template) -> bool:
    from shared.productions.augmenting import augmenting

    return augmenting(template.head) is not None


def _check_training_data(asked: _About, template: Template, candidates: int) -> None:
    """Raises InvalidRequest for what is not one training file of one line a row."""
    if candidates > 1 and template.head.best_of is None:
        raise InvalidRequest("augment: one text a row; 'n' needs 'best_of'", param="n")
    if "output_format" in asked.model_fields_set and asked.output_format != "jsonl":
        raise InvalidRequest("augment: training files are jsonl", param="output_format")


def _spec(
    asked: ProductionRequest,
    read: Read,
    named: dict[str, str],
    file: FileRow,
    held: References,
) -> ProductionSpec:
    life = asked.output_expires_after
    return ProductionSpec(
        template=asked.template,
        data_format=asked.data_format or format_of(file),
        audience_format=format_of(held.audiences) if held.audiences else None,
        examples_file=held.examples,
        documents=held.documents,
        output_format="jsonl" if _makes_training_data(read.template) else asked.output_format,
        models=read.models,
        named=named,
        n=read.n,
        sampling=asked.sampling.model_dump(exclude_none=True) if asked.sampling else {},
        priority=asked.priority,
        dry_run=asked.dry_run,
        output_seconds=life.seconds if life else None,
    )


def hold_data(connection: Connection, tenant_id: str, file_id: str) -> FileRow:
    """Raises NotFound."""
    file = hold_file(connection, tenant_id, file_id) if parsing.is_id(file_id) else None
    if file is None:
        raise NotFound("there is no such file", param="data_file_id")
    return file
