"""Limits that are new: work counts for them also if it was accepted at the moment they were set.

A submission locks the table of shards, looks at the tenant's limits, and commits: one that looked
before there were any may commit after. Nothing is asked of submissions for that. Whoever has set
limits finds out instead who is writing to the table at that moment, by Postgres' own list of locks,
waits until they are through, and counts once more what is open (``quotas.hold_open``): whoever
comes after sees the limits, since a statement locks its tables before it looks.

The API does so before it answers. Upkeep does it again, and marks the limits as settled: somebody
has to if the API was killed, or gave up waiting for one that took too long.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.lifecycle.limit_notices import tell_of_limits
from shared.lifecycle.quotas import hold_open

AT_ONCE = 100
LOOK_SECONDS = 0.005

_WRITERS = text("""
SELECT DISTINCT l.virtualtransaction FROM pg_locks l
 WHERE l.locktype = 'relation' AND l.relation = CAST('shards' AS regclass)
   AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")

_UNSETTLED = text("""
SELECT tenant_id, CAST(CAST(xmin AS text) AS bigint) FROM tenant_limits WHERE NOT settled
 ORDER BY random() LIMIT :limit
""")

_HOLD = text("""
SELECT 1 FROM tenant_limits
 WHERE tenant_id = :tenant AND CAST(CAST(xmin AS text) AS bigint) = :version AND NOT settled
   FOR NO KEY UPDATE
""")

_TODAY = text("SELECT CAST(clock_timestamp() AT TIME ZONE 'UTC' AS date)")

_SETTLE = text("UPDATE tenant_limits SET settled = true WHERE tenant_id = :tenant")


class NewLimits(NamedTuple):
    """A tenant whose limits are to be settled, and which change of them."""

    tenant_id: str
    version: int


def writers(connection: Connection) -> frozenset[str]:
    """The transactions that write shards at this moment, of any tenant."""
    return frozenset(connection.execute(_WRITERS).scalars())


def wait_for_writers(connection: Connection, *, seconds: float) -> bool:
    """Waits until everybody is through who writes shards when this is called, and not for those
    who come later; False when that takes longer. ``connection`` commits each statement."""
    until = time.monotonic() + seconds
    left = writers(connection)
    while left:
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_SECONDS)
        left &= writers(connection)
    return True


def unsettled_limits(connection: Connection, *, limit: int = AT_ONCE) -> list[NewLimits]:
    """Limits that are new, of any tenants."""
    return [NewLimits._make(row) for row in connection.execute(_UNSETTLED, {"limit": limit})]


def settle_limits(connection: Connection, new: NewLimits) -> bool:
    """Counts what the tenant has open, tells it of what it has used up already, and marks the
    limits as settled; for a transaction, once all are through who wrote shards when the limits
    were seen. False when they have been changed since, or somebody else was faster."""
    if connection.execute(_HOLD, new._asdict() | {"tenant": new.tenant_id}).scalar() is None:
        return False
    hold_open(connection, new.tenant_id)
    today = connection.execute(_TODAY).scalar_one()
    tell_of_limits(connection, [(new.tenant_id, today)])
    connection.execute(_SETTLE, {"tenant": new.tenant_id})
    return True
