"""The end of a sweep: the best trial's model becomes the job's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from shared.db.models import hold_model
from shared.errors import ModelNotFound
from shared.lifecycle.fence import Held
from shared.lifecycle.stages import NewFile
from shared.lifecycle.tuned_models import NewModel, add_model
from shared.lifecycle.tuning_close import add_result_file, already, close, digest, succeed
from shared.states import ShardState

_READ = text("SELECT detail FROM jobs WHERE id = :job FOR UPDATE")

_BEST = text("""
SELECT c.detail, c.result FROM trials t JOIN jobs c ON c.id = t.job_id
 WHERE t.job_id = :best AND t.parent_id = :job
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEnd:
    """What a sweep has found; all objects are stored."""

    best_job_id: str
    best_model: str
    """The model that the best trial made."""
    model: str
    """The name under which it is offered as the sweep's."""
    best: dict[str, Any]
    """``{"job", "number", "params", "value"}``"""
    files: Sequence[NewFile] = ()
    """For the tenant: reports, the table of trials, a chart."""
    trained_tokens: int = 0
    """Of all trials, each of which has counted its own."""
    detail: dict[str, Any] = field(default_factory=dict)
    """More for the model's page."""

    @property
    def sha256(self) -> str:
        """The same for the same bytes, however often they are committed."""
        results = [[file.filename, file.stored.sha256] for file in self.files]
        return digest(self.model, self.best_model, self.best, results)


def finish_sweep(connection: Connection, session_id: str, held: Held, end: SweepEnd) -> bool:
    """Offers the best trial's model by the sweep's name, of the same files; makes the reports
    visible and ends the job. Idempotent for the same bytes; False means that this worker is a
    zombie. Raises ModelNotFound when that model was deleted meanwhile."""
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, end.sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, end.sha256)
    detail = connection.execute(_READ, {"job": shard.job_id}).scalar_one()
    made = hold_model(connection, shard.tenant_id, end.best_model)
    if made is None:
        raise ModelNotFound("the best trial's model was deleted")
    model = NewModel(
        id=end.model,
        pool=made.pool,
        engine=made.engine,
        base_model=made.base_model,
        adapter=made.adapter,
        settings=made.settings,
        endpoints=made.endpoints,
        files=made.files,
        bytes=made.bytes,
        detail=made.detail | end.detail | {"sweep": end.best},
        owned_by=made.owned_by,
    )
    add_model(connection, shard.tenant_id, shard.job_id, model)
    for file in end.files:
        add_result_file(connection, shard.job_id, file)
    best = connection.execute(_BEST, {"job": shard.job_id, "best": end.best_job_id}).one()
    card = [detail["card_file_id"]] if "card_file_id" in detail else []
    result = {
        "fine_tuned_model": end.model,
        "trained_tokens": end.trained_tokens,
        "result_files": [file.file_id for file in end.files] + card,
        "metrics": best.result.get("metrics"),
        "best": end.best,
    }
    detail["training"] = best.detail.get("training", {})
    succeed(connection, shard.job_id, result=result, detail=detail)
    return True
