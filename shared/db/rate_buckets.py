"""Queries on ``rate_buckets``: one row for each tenant with a rate, whatever process it calls.

A bucket is known by when it would be full again. The table is unlogged: taking from it waits for no
disk, and after a crash of the database all buckets are full.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

# A bucket that takes longer to fill than an empty one is of a rate that was: by today's, it has one
# request left.
_FULL_AT = """CASE
    WHEN b.full_at > excluded.full_at + make_interval(secs => :seconds * (:burst - 1) + 1)
    THEN excluded.full_at + make_interval(secs => :seconds * (:burst - 2))
    ELSE greatest(b.full_at, excluded.full_at - make_interval(secs => :seconds)) END"""

# The time is the one before the row's lock was waited for: a little early, so never too generous.
_TAKE = text(f"""
INSERT INTO rate_buckets AS b (tenant_id, full_at)
VALUES (:tenant, clock_timestamp() + make_interval(secs => :seconds))
    ON CONFLICT (tenant_id) DO UPDATE
   SET full_at = {_FULL_AT} + make_interval(secs => :seconds)
 WHERE {_FULL_AT} <= excluded.full_at + make_interval(secs => :seconds * (:burst - 2))
RETURNING CAST(extract(epoch FROM full_at - clock_timestamp()) AS double precision)
""")

_LOOK = text("""
SELECT CAST(extract(epoch FROM full_at - clock_timestamp()) AS double precision)
  FROM rate_buckets WHERE tenant_id = :tenant
""")


class Taken(NamedTuple):
    """What came of asking a bucket for one request."""

    is_granted: bool
    seconds_to_full: float
    """From now on, if nobody calls."""


def take_request(
    connection: Connection, tenant_id: str, *, seconds_each: float, burst: int
) -> Taken:
    """Takes one request out of the tenant's bucket, which holds ``burst`` and gains one every
    ``seconds_each``. For a connection without a transaction: others wait until it is committed."""
    values = {"tenant": tenant_id, "seconds": seconds_each, "burst": burst}
    left = connection.execute(_TAKE, values).scalar()
    if left is not None:
        return Taken(True, max(0.0, left))
    left = connection.execute(_LOOK, {"tenant": tenant_id}).scalar()
    return Taken(False, max(0.0, left or 0.0))
