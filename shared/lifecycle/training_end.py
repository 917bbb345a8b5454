"""The end of a training: its model, its files and the job's outcome, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import Held
from shared.lifecycle.stages import NewFile
from shared.lifecycle.tuned_models import NewModel, add_model
from shared.lifecycle.tuning import ENDPOINT
from shared.lifecycle.tuning_close import add_result_file, already, close, digest, succeed
from shared.lifecycle.usage import UsageLine, add_usage
from shared.states import ShardState

_READ_JOB = text("SELECT detail, model FROM jobs WHERE id = :job FOR UPDATE")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEnd:
    """What a training has made; all objects are stored."""

    model: NewModel
    files: Sequence[NewFile] = ()
    """For the tenant: report, curves, metrics."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """``{"before": {…}, "after": {…}}``"""
    trained_tokens: int = 0
    step: int = 0
    """The step that the delivered weights are of."""
    seconds: float = 0.0
    """What it took, over all attempts."""

    @property
    def sha256(self) -> str:
        """The same for the same bytes, however often they are committed."""
        weights = sorted([file.path, file.sha256] for file in self.model.files)
        results = [[file.filename, file.stored.sha256] for file in self.files]
        return digest(self.model.id, weights, results)


def finish_training(connection: Connection, session_id: str, held: Held, end: TrainingEnd) -> bool:
    """Offers the model, makes the files visible, counts the usage and ends the job. Idempotent for
    the same bytes; False means that this worker is a zombie and must drop it."""
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, end.sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, end.sha256)
    detail, base = connection.execute(_READ_JOB, {"job": shard.job_id}).one()
    add_model(connection, shard.tenant_id, shard.job_id, end.model)
    for file in end.files:
        add_result_file(connection, shard.job_id, file)
    seconds = end.seconds or None
    used = UsageLine(ENDPOINT, base, 1, end.trained_tokens, 0, compute_seconds=seconds)
    add_usage(connection, held, used)
    card = [detail["card_file_id"]] if "card_file_id" in detail else []
    result = {
        "fine_tuned_model": end.model.id,
        "trained_tokens": end.trained_tokens,
        "result_files": [file.file_id for file in end.files] + card,
        "metrics": end.metrics,
    }
    ended = {"step": end.step, "seconds": end.seconds}
    detail["training"] = detail.get("training", {}) | ended
    succeed(connection, shard.job_id, result=result, detail=detail, tokens=end.trained_tokens)
    return True
