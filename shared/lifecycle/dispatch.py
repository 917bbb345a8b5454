"""From waiting to ready: the window, which bounds what claims have to look at."""

from __future__ import annotations

from sqlalchemy import Connection, text

from shared.lifecycle.taking import STATE
from shared.states import ShardState, guard

# A loose index scan: one probe per tenant that waits, however many shards each has. The planner
# expects to move more than it does: told twice by which ids, it does not read all shards for them.
_DISPATCH = text(f"""
WITH RECURSIVE waiting (tenant_id) AS (
    (SELECT tenant_id FROM shards WHERE pool = :pool AND state = 'queued' AND blocked_n = 0
      ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT s.tenant_id FROM shards s
             WHERE s.pool = :pool AND s.state = 'queued' AND s.blocked_n = 0
               AND s.tenant_id > w.tenant_id
             ORDER BY s.tenant_id LIMIT 1)
      FROM waiting w WHERE w.tenant_id IS NOT NULL
), picked AS (
    SELECT next.id, next.turn
      FROM waiting w
     CROSS JOIN LATERAL (
           SELECT greatest(0, :window - count(*)) AS free FROM shards r
            WHERE r.pool = :pool AND r.tenant_id = w.tenant_id AND r.state = 'ready') room
     CROSS JOIN LATERAL (
           SELECT held.id, row_number() OVER (ORDER BY held.priority, held.id) AS turn
             FROM (SELECT q.id, q.priority FROM shards q
                    WHERE q.pool = :pool AND q.tenant_id = w.tenant_id AND q.state = 'queued'
                      AND q.blocked_n = 0
                    ORDER BY q.priority, q.id LIMIT room.free FOR UPDATE SKIP LOCKED) held) next
     WHERE w.tenant_id IS NOT NULL
), in_turn AS (
    SELECT id, nextval('ready_seq') AS seq FROM (SELECT id FROM picked ORDER BY turn, id) o
)
UPDATE shards s SET state = 'ready', ready_seq = in_turn.seq
  FROM in_turn
 WHERE s.id = in_turn.id AND s.id = ANY (ARRAY(SELECT id FROM in_turn))
   AND {guard(STATE, ShardState.READY)}
""")

# Two dispatchers that count the same window would both fill it. The one that comes second leaves
# the pool to the first; nothing to move, no lock.
_TURN = text("""
SELECT pg_try_advisory_xact_lock(:lock, hashtext(:pool))
 WHERE EXISTS (SELECT 1 FROM shards WHERE pool = :pool AND state = 'queued' AND blocked_n = 0)
""")
_TURN_LOCK = 7_703_002


def dispatch(connection: Connection, *, pool: str, window: int) -> int:
    """Moves waiting shards into the ready window, tenants taking turns; returns how many.

    It fills a tenant's window in a pool to ``window`` ready shards, whatever the tenant has
    submitted; shards that came back may be ready on top of that. Any number of processes may run
    it, each in a transaction (not autocommit): the pool's turn ends with it.
    """
    if not connection.execute(_TURN, {"lock": _TURN_LOCK, "pool": pool}).scalar():
        return 0
    return connection.execute(_DISPATCH, {"pool": pool, "window": window}).rowcount
