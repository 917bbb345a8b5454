"""What ended work has consumed, and what that costs: written once, in the commit that ends it.

Costs are millionths of the unit that the catalog's prices are in, so a price for a million tokens
is the cost of one. A tuned model costs what the catalog's model costs that it was tuned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.lifecycle.artifacts import NewArtifact
from shared.lifecycle.fence import Held

TRAINING = "/v1/fine_tuning/jobs"
"""The endpoint whose tokens and seconds have prices of their own."""

MEDIA_ROLES = frozenset({"audio", "video"})


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What a shard consumed of one model."""

    endpoint: str
    model: str
    rows: int
    input_tokens: int
    output_tokens: int
    images: int = 0
    media_seconds: float = 0.0
    """Of the sound and video that was made."""
    compute_seconds: float | None = None
    """The rows' share of the time that their engine worked; None: as long as the shard ran."""


def made(artifacts: Sequence[NewArtifact]) -> tuple[int, float]:
    """How many pictures, and how many seconds of sound and video, these are."""
    images = sum(artifact.role == "image" for artifact in artifacts)
    seconds = sum(artifact.seconds or 0.0 for artifact in artifacts if artifact.role in MEDIA_ROLES)
    return images, seconds


RAN = """greatest(0, CAST(extract(epoch FROM clock_timestamp() - s.started_at)
                     AS double precision))"""
"""For how long shard ``s`` has run, in seconds."""


def priced(model: str) -> str:
    """Joins ``priced``: the model of the catalog whose price is the one of ``model``."""
    return f"""
    LEFT JOIN models m ON m.id = {model}
    LEFT JOIN models priced ON priced.tenant_id IS NULL AND priced.id = CASE
        WHEN m.tenant_id IS NULL THEN m.id ELSE (
            WITH RECURSIVE up (id, tenant_id, base_model) AS (
                SELECT b.id, b.tenant_id, b.base_model FROM models b WHERE b.id = m.base_model
                UNION
                SELECT b.id, b.tenant_id, b.base_model
                  FROM models b JOIN up ON b.id = up.base_model WHERE up.tenant_id IS NOT NULL)
            SELECT up.id FROM up WHERE up.tenant_id IS NULL LIMIT 1) END"""


def _price(name: str) -> str:
    return f"coalesce(CAST(priced.detail #>> '{{price,{name}}}' AS double precision), 0)"


def cost(endpoint: str, of: str) -> str:
    """The cost, beside ``priced``, of what the columns of ``of`` say was consumed."""
    return f"""
    CASE WHEN priced.id IS NULL OR CAST(priced.detail AS text) = '{{}}' THEN 0
         ELSE CAST(round(CAST(
             {of}.output_tokens * {_price("output_per_million")}
             + 1e6 * {of}.images * {_price("per_image")}
             + 1e6 * {of}.media_seconds * {_price("per_second")}
             + CASE WHEN {endpoint} = '{TRAINING}'
                    THEN {of}.input_tokens * {_price("training_per_million")}
                         + 1e6 * {of}.compute_seconds * {_price("training_per_second")}
                    ELSE {of}.input_tokens * {_price("input_per_million")} END
             AS numeric)) AS bigint) END"""


_ADD = text(f"""
WITH used AS (
    SELECT CAST(:endpoint AS text) AS endpoint, CAST(:model AS text) AS model,
           CAST(:rows AS int) AS rows, CAST(:input AS bigint) AS input_tokens,
           CAST(:output AS bigint) AS output_tokens, CAST(:images AS int) AS images,
           CAST(:media AS double precision) AS media_seconds,
           coalesce(CAST(:compute AS double precision), {RAN} * :share) AS compute_seconds,
           s.id, s.tenant_id, s.job_id
      FROM shards s WHERE s.id = :shard)
INSERT INTO usage (shard_id, endpoint, model, epoch, tenant_id, job_id, rows, input_tokens,
                   output_tokens, images, media_seconds, compute_seconds, cost)
SELECT used.id, used.endpoint, used.model, :epoch, used.tenant_id, used.job_id, used.rows,
       used.input_tokens, used.output_tokens, used.images, used.media_seconds,
       used.compute_seconds, {cost("used.endpoint", "used")}
  FROM used {priced("used.model")}
""")


def add_usage(connection: Connection, held: Held, line: UsageLine, *, share: float = 1.0) -> None:
    """For the transaction that ends the shard, behind its fence. ``share`` is the part of its time
    that counts for the line, where nobody has measured it."""
    connection.execute(
        _ADD,
        {
            "shard": held.shard_id,
            "epoch": held.epoch,
            "endpoint": line.endpoint,
            "model": line.model,
            "rows": line.rows,
            "input": line.input_tokens,
            "output": line.output_tokens,
            "images": line.images,
            "media": line.media_seconds,
            "compute": line.compute_seconds,
            "share": share,
        },
    )
