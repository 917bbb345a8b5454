"""What the production of a run is asked: names are looked up anew for each, as an alias may have
moved and a file may be gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from shared.db.aliases import hold_named
from shared.db.files import FileRow, hold_file
from shared.errors import InvalidRequest, ModelNotFound, NotFound
from shared.ids import new_production_id
from shared.lifecycle import NewProduction
from shared.lifecycle.working import RunClaim
from shared.productions.augmenting import augmenting
from shared.productions.tables import TableRefused, kind_of
from shared.productions.template import parse_template
from shared.specs.productions import ProductionSpec
from shared.translation import serves

if TYPE_CHECKING:
    from shared.productions.specs import TemplateHead

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
CLASSIFICATIONS = "/v1/classifications"
LABEL = "schedule"
"""Of its productions' metadata."""


def production_of_run(connection: Connection, claim: RunClaim, data_file_id: str) -> NewProduction:
    """All that it names is held until the transaction ends. Raises InvalidRequest or a subclass."""
    spec = claim.spec
    template = parse_template(spec.template)
    head, names = template.head, template.models(spec.model)
    named = _models(connection, claim.tenant_id, names, head)
    audience = _audiences(connection, claim.tenant_id, head)
    listed = [*spec.documents, *([spec.examples_file] if spec.examples_file else [])]
    for each in listed:
        _file(connection, claim.tenant_id, each.id)
    aliases = {name: model for name, model in named.items() if name != model}
    asked = ProductionSpec(
        template=spec.template,
        data_format="jsonl",
        audience_format=None if audience is None else kind_of(audience.filename).value,
        output_format="jsonl" if augmenting(head) is not None else spec.output_format,
        models=names,
        named=named,
        n=spec.n,
        sampling=spec.sampling,
        priority=spec.priority,
        output_seconds=spec.output_seconds,
        examples_file=spec.examples_file,
        documents=tuple(spec.documents),
    )
    return NewProduction(
        job_id=new_production_id(),
        tenant_id=claim.tenant_id,
        spec=asked.model_dump_json(exclude_none=True),
        models=[named[name] for name in names] + sorted(named.values()),
        data_file_id=data_file_id,
        audience_file_id=None if audience is None else audience.id,
        detail={"aliases": aliases} if aliases else {},
        metadata=(spec.metadata or {}) | {LABEL: claim.schedule_id},
        priority=spec.priority,
        expires_in_seconds=spec.expires_in_seconds,
    )


def _models(
    connection: Connection, tenant_id: str, names: tuple[str, ...], head: TemplateHead
) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, endpoint in sorted(_named(names, head)):
        model = hold_named(connection, tenant_id, name)
        if model is None or not serves(model.endpoints, endpoint):
            message = f"there is no model {name!r} that serves {endpoint}"
            raise ModelNotFound(message, param="model")
        found[name] = model.id
    return found


def _named(names: tuple[str, ...], head: TemplateHead) -> Iterator[tuple[str, str]]:
    """Each name, and what it has to serve."""
    steps = [step.model for step in head.steps if step.model is not None]
    yield from ((name, CHAT) for name in {*names, *steps})
    if head.examples_from is not None:
        yield head.examples_from.model, EMBEDDINGS
    if head.documents is not None:
        yield head.documents.model, EMBEDDINGS
    if head.best_of is not None and head.best_of.model is not None:
        yield head.best_of.model, CLASSIFICATIONS


def _audiences(connection: Connection, tenant_id: str, head: TemplateHead) -> FileRow | None:
    """The table of audiences, where the template names one."""
    if head.audiences is None or isinstance(head.audiences, list):
        return None
    file = _file(connection, tenant_id, head.audiences.file)
    try:
        kind_of(file.filename)
    except TableRefused as refused:
        raise InvalidRequest(refused.bad.message, param="template.audiences.file") from None
    return file


def _file(connection: Connection, tenant_id: str, file_id: str) -> FileRow:
    file = hold_file(connection, tenant_id, file_id)
    if file is None:
        raise NotFound("a file that the template names is gone", param="template")
    return file
