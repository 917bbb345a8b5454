"""What models that were made smaller are called, and what is said of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.db.models import ModelFile
from shared.lifecycle.working import NewModel
from shared.specs.model_jobs import OptimizationSpec, label_of
from worker.tuning.messages import Plan
from worker.tuning.planning import ID_LENGTH, Base, digest_of, parts_of

_LONGEST_SUFFIX = 64


def optimized_name(spec: OptimizationSpec, source: str, tenant_id: str, job_id: str) -> str:
    """``ft:{base}:{tenant}:{suffix}:{id8}``, as of every model of a tenant's own. Without a suffix
    that was asked for, what the method is called follows that of the source."""
    base, _, suffix = parts_of(source)
    label = label_of(spec.method)
    told = spec.suffix or (f"{suffix}-{label}" if suffix else label)
    return f"ft:{base}:{tenant_id}:{told[-_LONGEST_SUFFIX:].lstrip('-')}:{job_id[-ID_LENGTH:]}"


def optimized_model(
    plan: Plan,
    base: Base,
    *,
    job_id: str,
    files: Sequence[ModelFile],
    table: Mapping[str, Any],
    data: Mapping[str, Any],
) -> NewModel:
    """What is offered: served as its source is, by the same engine, whole."""
    if base.model is None:
        raise AssertionError("an optimisation has a source")
    source, subject = base.model, plan.subjects[0]
    made_by = source.detail
    said = {
        "recipe": made_by.get("recipe"),
        "base_model": base.name,
        "parents": list(base.parents),
        "adapter": "none",
        "optimization": table["method"],
        "job": job_id,
        "metrics": {
            which: {name: sides[which] for name, sides in table["quality"].items()}
            for which in ("before", "after")
        },
        "costs": table["costs"],
        "data": dict(data),
        "digest": digest_of(files),
    }
    return NewModel(
        id=plan.model,
        pool=source.pool,
        engine=subject.engine,
        base_model=base.name,
        adapter=False,
        settings=dict(subject.settings),
        endpoints=list(source.endpoints),
        files=list(files),
        bytes=sum(file.bytes for file in files),
        detail=said,
        owned_by=parts_of(plan.model)[1],
    )
