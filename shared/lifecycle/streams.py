"""What running rows say before they have ended, for those who read along: fenced, and never an
end of anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.lifecycle.fence import FENCE_MANY, Held

# The shard is read and not locked: a lock would write to the log. A zombie that is quicker than
# its successor's claim tells under its own epoch, which readers know to be the older one.
_TELL = text(f"""
INSERT INTO deltas (tenant_id, job_id, epoch, seq, pieces)
SELECT s.tenant_id, s.job_id, d.epoch, d.seq, CAST(d.pieces AS json)
  FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS int[]), CAST(:seqs AS int[]),
              CAST(:pieces AS text[])) AS d (id, epoch, seq, pieces)
  JOIN shards s ON s.id = d.id AND s.stage = 'generate' AND {FENCE_MANY}
ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class NewDelta:
    """What the one row of a shard said since its last delta."""

    held: Held
    seq: int
    """From 0, without a gap; the same number always means the same pieces."""
    pieces: str
    """JSON: a list of [choice, characters of its text before this, what follows]."""


def add_deltas(connection: Connection, session_id: str, deltas: Sequence[NewDelta]) -> None:
    """Tells what rows said, in one statement. Shards that are not held any more match nothing;
    told again, a delta changes nothing."""
    connection.execute(
        _TELL,
        {
            "me": session_id,
            "ids": [delta.held.shard_id for delta in deltas],
            "epochs": [delta.held.epoch for delta in deltas],
            "seqs": [delta.seq for delta in deltas],
            "pieces": [delta.pieces for delta in deltas],
        },
    )
