"""Text as it is generated, for those who read along."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.states import OPEN_JOB

AT_ONCE = 5_000
"""Deltas read by one query."""

# Of a job that has ended nothing is read but that: its result has it all.
_READ = text(f"""
SELECT a.reader, j.id IS NULL AS ended, d.epoch, d.seq, CAST(d.pieces AS text) AS pieces
  FROM unnest(CAST(:readers AS int[]), CAST(:tenants AS text[]), CAST(:jobs AS text[]),
              CAST(:epochs AS int[]), CAST(:seqs AS int[]))
       AS a (reader, tenant_id, job_id, epoch, seq)
  LEFT JOIN jobs j ON j.id = a.job_id AND j.tenant_id = a.tenant_id AND j.deleted_at IS NULL
        AND j.state IN ({OPEN_JOB})
  LEFT JOIN deltas d ON d.job_id = j.id AND d.tenant_id = a.tenant_id
        AND (d.epoch, d.seq) > (a.epoch, a.seq)
 WHERE j.id IS NULL OR d.job_id IS NOT NULL
 ORDER BY d.epoch NULLS FIRST, d.seq, a.reader
 LIMIT {AT_ONCE}
""")


class Place(NamedTuple):
    """How far somebody has read a job."""

    tenant_id: str
    job_id: str
    epoch: int = 0
    """Of the last delta that was read."""
    seq: int = -1


class Piece(NamedTuple):
    """A stretch of one choice's text."""

    choice: int
    at: int
    """How many characters of the choice's text come before it."""
    text: str
    first: int = 0
    """How many of the choice's tokens come before those of ``logprobs``."""
    logprobs: dict[str, Any] | None = None
    """How likely the tokens were that end in it, as the body has it; only where it is asked for."""


class Delta(NamedTuple):
    """What a job said at one moment of an attempt."""

    epoch: int
    seq: int
    pieces: list[Piece]


class Read(NamedTuple):
    """What there is of one job beyond a place."""

    ended: bool
    """Or gone."""
    deltas: list[Delta]
    """Oldest first; none of a job that has ended."""


def read_deltas(connection: Connection, places: Sequence[Place]) -> dict[int, Read]:
    """What there is beyond each place, by its number among ``places``; those without news are left
    out. At most ``AT_ONCE`` deltas: there may be more."""
    rows = connection.execute(
        _READ,
        {
            "readers": list(range(len(places))),
            "tenants": [place.tenant_id for place in places],
            "jobs": [place.job_id for place in places],
            "epochs": [place.epoch for place in places],
            "seqs": [place.seq for place in places],
        },
    )
    found: dict[int, Read] = {}
    for row in rows:
        read = found.setdefault(row.reader, Read(row.ended, []))
        if not row.ended:
            pieces = [Piece(*piece) for piece in json.loads(row.pieces)]
            read.deltas.append(Delta(row.epoch, row.seq, pieces))
    return found


def forget_deltas(connection: Connection) -> int:
    """Removes what was said by jobs that have ended since: their results have it all. Returns how
    many deltas went."""
    # One look for each job that speaks: joined, all jobs there are would be read.
    statement = text(f"""
    DELETE FROM deltas WHERE job_id = ANY(ARRAY(
        SELECT said.job_id FROM (SELECT DISTINCT job_id FROM deltas) said
         WHERE (SELECT j.state IN ({OPEN_JOB}) FROM jobs j WHERE j.id = said.job_id)
               IS NOT TRUE))
    """)
    return connection.execute(statement).rowcount
