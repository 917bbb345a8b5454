"""Which rows of a source were seen before: kept with the acceptance of what is made of them.

A row is forgotten only once it has left the source: it was in none of what was read for so many
days, or there are too many of that sort.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from shared.specs.schedules import MOST_REMEMBERED

_SEE = text("""
INSERT INTO feed_rows (owner_id, tenant_id, row_hash, run_id)
SELECT :owner, :tenant, d.hash, CAST(:run AS text) FROM unnest(CAST(:new AS bytea[])) AS d (hash)
    ON CONFLICT (owner_id, row_hash) DO NOTHING
""")

# A day's precision is enough, and spares most reads a write for each row.
_SEE_AGAIN = text("""
UPDATE feed_rows SET last_seen_at = clock_timestamp()
 WHERE owner_id = :owner AND row_hash = ANY(:again)
   AND last_seen_at < clock_timestamp() - interval '1 day'
""")

_FORGET_OLD = text("""
DELETE FROM feed_rows
 WHERE owner_id = :owner AND last_seen_at < clock_timestamp() - make_interval(days => :days)
""")

# Those that are in the source now are beyond its reach: they may be up to a day older.
_FORGET_MANY = text("""
DELETE FROM feed_rows
 WHERE owner_id = :owner AND row_hash IN (
       SELECT row_hash FROM feed_rows
        WHERE owner_id = :owner AND NOT row_hash = ANY(:present)
        ORDER BY last_seen_at DESC OFFSET :most)
""")

_COUNT = text("SELECT count(*) FROM feed_rows WHERE owner_id = :owner")

_GIVE_BACK = text("DELETE FROM feed_rows WHERE owner_id = :owner AND run_id = :run")

_FORGET_ALL = text("DELETE FROM feed_rows WHERE owner_id = :owner AND tenant_id = :tenant")


def see_rows(
    connection: Connection,
    *,
    owner_id: str,
    tenant_id: str,
    run_id: str | None,
    new: Sequence[bytes],
    again: Sequence[bytes],
    days: int,
) -> None:
    """Remembers the hashes of ``new`` rows as taken by ``run_id``, and that those of ``again`` are
    still in the source; forgets what left it ``days`` ago. The caller holds the owner."""
    connection.execute(
        _SEE, {"owner": owner_id, "tenant": tenant_id, "run": run_id, "new": list(new)}
    )
    connection.execute(_SEE_AGAIN, {"owner": owner_id, "again": list(again)})
    connection.execute(_FORGET_OLD, {"owner": owner_id, "days": days})
    known: int = connection.execute(_COUNT, {"owner": owner_id}).scalar_one()
    if known > MOST_REMEMBERED:
        present = [*new, *again]
        values = {"owner": owner_id, "present": present, "most": MOST_REMEMBERED}
        connection.execute(_FORGET_MANY, values)


def give_back_rows(connection: Connection, *, owner_id: str, run_id: str) -> None:
    """The rows that a run took are new again."""
    connection.execute(_GIVE_BACK, {"owner": owner_id, "run": run_id})


def forget_rows(connection: Connection, *, owner_id: str, tenant_id: str) -> None:
    """All that the owner knows."""
    connection.execute(_FORGET_ALL, {"owner": owner_id, "tenant": tenant_id})
