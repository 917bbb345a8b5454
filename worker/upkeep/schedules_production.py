"""What the production of a run is asked: names are looked up anew for each, as an alias may have
moved. Its files are in use for as long as the schedule is live, also beyond their time."""

from __future__ import annotations

from sqlalchemy import Connection

from shared.db.files import hold_file_in_use
from shared.ids import new_production_id
from shared.lifecycle import NewProduction
from shared.lifecycle.production_names import format_of, hold_models, hold_references
from shared.lifecycle.working import RunClaim
from shared.productions.augmenting import augmenting
from shared.productions.template import parse_template
from shared.specs.productions import ProductionSpec

LABEL = "schedule"
"""Of its productions' metadata."""


def production_of_run(connection: Connection, claim: RunClaim, data_file_id: str) -> NewProduction:
    """All that it names is held until the transaction ends. Raises InvalidRequest or a subclass,
    NotFound for a file that is gone."""
    spec = claim.spec
    template = parse_template(spec.template)
    head, names = template.head, template.models(spec.model)
    named = hold_models(connection, claim.tenant_id, names, head)
    held = hold_references(connection, claim.tenant_id, head, hold=hold_file_in_use)
    aliases = {name: model for name, model in named.items() if name != model}
    asked = ProductionSpec(
        template=spec.template,
        data_format="jsonl",
        audience_format=None if held.audiences is None else format_of(held.audiences),
        output_format="jsonl" if augmenting(head) is not None else spec.output_format,
        models=names,
        named=named,
        n=spec.n,
        sampling=spec.sampling,
        priority=spec.priority,
        output_seconds=spec.output_seconds,
        examples_file=held.examples,
        documents=held.documents,
    )
    return NewProduction(
        job_id=new_production_id(),
        tenant_id=claim.tenant_id,
        spec=asked.model_dump_json(exclude_none=True),
        models=[named[name] for name in names] + sorted(named.values()),
        data_file_id=data_file_id,
        audience_file_id=None if held.audiences is None else held.audiences.id,
        detail={"aliases": aliases} if aliases else {},
        metadata=(spec.metadata or {}) | {LABEL: claim.schedule_id},
        priority=spec.priority,
        expires_in_seconds=spec.expires_in_seconds,
    )
