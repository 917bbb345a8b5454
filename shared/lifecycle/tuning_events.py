"""What a fine-tuning job tells of itself: events of its job, which nobody's decisions rest on."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import FENCE, Held

CREATED = "fine_tune.created"
VALIDATED = "fine_tune.validated"
STARTED = "fine_tune.started"
CHECKPOINT = "fine_tune.checkpoint"
METRICS = "fine_tune.metrics"
NOTE = "fine_tune.note"
PAUSED = "fine_tune.paused"
RESUMED = "fine_tune.resumed"

# Other kinds of jobs that are run as trainings are tell the same under their own names.
_ANNOUNCE = text("""
INSERT INTO events (tenant_id, job_id, type, data)
SELECT tenant_id, id, kind || substr(:type, strpos(:type, '.')), CAST(:data AS json)
  FROM jobs WHERE id = :job
""")

_NOTE = text(f"""
INSERT INTO events (tenant_id, job_id, type, data)
SELECT s.tenant_id, s.job_id, j.kind || substr(:type, strpos(:type, '.')), CAST(:data AS json)
  FROM shards s JOIN jobs j ON j.id = s.job_id
 WHERE s.id = :id AND {FENCE}
""")


def announce(
    connection: Connection, job_id: str, kind: str, data: dict[str, Any] | None = None
) -> None:
    """Adds an event to the job, within the transaction that makes it true."""
    connection.execute(_ANNOUNCE, {"job": job_id, "type": kind, "data": json.dumps(data or {})})


def add_note(
    connection: Connection, session_id: str, held: Held, message: str, level: str = "info"
) -> None:
    """Tells the tenant something about a shard while it is held; a zombie's words are dropped.
    ``level`` is ``info``, ``warn`` or ``error``."""
    connection.execute(
        _NOTE,
        {
            "me": session_id,
            "id": held.shard_id,
            "epoch": held.epoch,
            "type": NOTE,
            "data": json.dumps({"message": message, "level": level}),
        },
    )
