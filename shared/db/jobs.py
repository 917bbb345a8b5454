"""Queries on ``jobs``, for those who look at them; ``shared.lifecycle`` changes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import Connection, text

from shared.db.job_rows import LIVE, JobRow, facts
from shared.db.security import SAID, says_for_whom
from shared.ids import LENGTH

__all__ = [
    "KIND_PREFIXES",
    "LATEST",
    "JobRow",
    "get_job",
    "id_column",
    "is_our_id",
    "list_jobs",
]

LATEST = "z" * 26
"""Sorts after the random part of every id, in any collation."""

KIND_PREFIXES = {
    "generate": "job_",
    "batch": "batch_",
    "video": "video_",
    "campaign": "campaign_",
    "fine_tune": "ftjob-",
    "import": "import_",
    "evaluation": "eval_",
    "optimization": "optjob-",
    "response": "resp_",
    "production": "prod_",
}

_OUR_ID = re.compile(r"[a-z]{2,10}[_-][0-9a-z]{26}", re.ASCII)

_GETS = {
    column: says_for_whom(
        text(f"""
SELECT {facts(pool=True, in_line=True)}, CAST(j.result AS text) AS result
  FROM jobs j {LIVE}
 WHERE {SAID} AND j.{column} = :id AND j.tenant_id = :tenant AND j.deleted_at IS NULL
""")
    )
    for column in ("id", "client_id")
}

# JSONB refuses an escaped NUL and halves of surrogates, which labels may hold.
_LABELLED = r"""CASE WHEN :labels = 'null' THEN w.metadata IS NULL
                WHEN CAST(w.metadata AS text) ~ '\\u(0000|d[89a-f])' THEN false
                ELSE CAST(w.metadata AS jsonb) @> CAST(:labels AS jsonb) END"""

_OF_PARENT = """CASE WHEN CAST(:parent AS text) = 'none'
                THEN NOT EXISTS (SELECT 1 FROM trials t WHERE t.job_id = w.id)
                ELSE w.id IN (SELECT t.job_id FROM trials t WHERE t.parent_id = :parent) END"""

_OF_PRODUCTION = """CASE WHEN CAST(:production AS text) IS NULL
                THEN w.kind <> 'batch' OR NOT EXISTS (
                         SELECT 1 FROM production_batches b WHERE b.job_id = w.id)
                ELSE w.id IN (SELECT b.job_id FROM production_batches b
                               WHERE b.parent_id = :production) END"""

# The index is by tenant and id, and ids begin with their kind: one short walk a kind, then the
# first of all of them.
_LISTS = {
    order: text(f"""
SELECT {facts()}
  FROM unnest(CAST(:kinds AS text[]), CAST(:lows AS text[]), CAST(:highs AS text[]))
       AS k (kind, low, high)
 CROSS JOIN LATERAL (
       SELECT * FROM jobs w
        WHERE w.tenant_id = :tenant AND w.kind = k.kind AND w.id > k.low AND w.id < k.high
          AND w.deleted_at IS NULL
          AND (CAST(:state AS text) IS NULL OR w.state = :state)
          AND (CAST(:endpoint AS text) IS NULL OR w.endpoint = :endpoint)
          AND (CAST(:labels AS text) IS NULL OR {_LABELLED})
          AND (CAST(:parent AS text) IS NULL OR {_OF_PARENT})
          AND {_OF_PRODUCTION}
        ORDER BY w.id {order} LIMIT :limit) j
 {LIVE}
 ORDER BY right(j.id, 26) {order} LIMIT :limit
""")
    for order in ("asc", "desc")
}


def get_job(
    connection: Connection, tenant_id: str, job_id: str
) -> tuple[JobRow, str | None] | None:
    """The job, and its result as JSON text; None when the tenant has no such job. ``job_id`` is
    ours or the caller's own."""
    statement = _GETS[id_column(job_id)]
    row = connection.execute(statement, {"tenant": tenant_id, "id": job_id}).one_or_none()
    return None if row is None else (JobRow._make(json.loads(row.facts)), row.result)


def list_jobs(
    connection: Connection,
    tenant_id: str,
    *,
    kinds: Sequence[str],
    after: str | None,
    limit: int,
    state: str | None = None,
    endpoint: str | None = None,
    order: str = "desc",
    metadata: dict[str, str] | Literal["none"] | None = None,
    parent: str | None = None,
    production: str | None = None,
) -> list[JobRow]:
    """By time, those beyond the id ``after``; without queue positions. ``order`` is ``asc`` or
    ``desc``, newest first. ``metadata``: only jobs with these labels, or with none at all.
    ``parent``: only trials of this sweep, or with ``"none"`` only jobs that are no trials.
    Batches of a production are listed where ``production`` names it, and nowhere else."""
    moment = None if after is None else after[-LENGTH:]
    low, high = (moment or "", LATEST) if order == "asc" else ("", moment or LATEST)
    values = {
        "tenant": tenant_id,
        "kinds": list(kinds),
        "lows": [KIND_PREFIXES[kind] + low for kind in kinds],
        "highs": [KIND_PREFIXES[kind] + high for kind in kinds],
        "state": state,
        "endpoint": endpoint,
        "limit": limit,
        "labels": None if metadata is None else _labels(metadata),
        "parent": parent,
        "production": production,
    }
    rows = connection.execute(_LISTS[order], values)
    return [JobRow._make(json.loads(row.facts)) for row in rows]


def _labels(metadata: dict[str, str] | Literal["none"]) -> str:
    return "null" if metadata == "none" else json.dumps(metadata)


def id_column(job_id: str) -> Literal["id", "client_id"]:
    """Where to look for a job by what it is called: callers' own ids never begin as ours do."""
    return "id" if is_our_id(job_id) else "client_id"


def is_our_id(job_id: str) -> bool:
    """Whether a job of ours could be called so, now or in time to come: nobody else's may."""
    return job_id.startswith(tuple(KIND_PREFIXES.values())) or _OUR_ID.fullmatch(job_id) is not None
