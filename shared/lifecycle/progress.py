"""How far running shards are, for those who watch: fenced, and never an end of anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.lifecycle.fence import FENCE_MANY, Held

# Slices count rows; this is for shards of one row. A step of a graph leaves its job alone: its
# siblings on other workers would queue for that row, every second.
_STEPS_DONE = text(f"""
WITH d AS (
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS int[]),
                         CAST(:fractions AS double precision[]), CAST(:data AS text[]))
        AS d (id, epoch, fraction, data)
), shard AS (
    UPDATE shards s SET progress = d.fraction FROM d WHERE s.id = d.id AND {FENCE_MANY}
    RETURNING s.job_id, s.tenant_id, s.stage, d.fraction, d.data
), job AS (
    UPDATE jobs j SET progress = shard.fraction, version = j.version + 1
      FROM shard WHERE j.id = shard.job_id AND shard.stage = 'generate'
)
INSERT INTO events (tenant_id, job_id, type, data)
SELECT tenant_id, job_id, 'job.progress', CAST(data AS json) FROM shard WHERE data IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class RowStep:
    """How far the one row of a shard is: ``step`` of ``steps`` are done."""

    held: Held
    fraction: float
    """0 to 1; within an attempt it never goes down."""
    step: int
    steps: int
    stage: str
    """What the engine is doing, where it does several things."""
    announce: bool
    """Whether to tell it as an event, too."""
    name: str | None = None
    """Of the step of a graph."""

    def event(self) -> str | None:
        """The data of the event as JSON; None for no event."""
        if not self.announce:
            return None
        named = {} if self.name is None else {"name": self.name}
        return json.dumps({"step": self.step, "steps": self.steps, "stage": self.stage, **named})


def report_steps(connection: Connection, session_id: str, steps: Sequence[RowStep]) -> None:
    """Writes how far single rows are: on the job, or on the shard of a graph's step. Rows of
    shards that are not held any more match nothing."""
    connection.execute(
        _STEPS_DONE,
        {
            "me": session_id,
            "ids": [item.held.shard_id for item in steps],
            "epochs": [item.held.epoch for item in steps],
            "fractions": [item.fraction for item in steps],
            "data": [item.event() for item in steps],
        },
    )
