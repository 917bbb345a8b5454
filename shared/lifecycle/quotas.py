"""Whether a tenant may have the work that a transaction is about to accept.

``hold`` is called at the end of every such transaction. A tenant without limits costs it one look.
For the others it takes turns by the lock of the tenant's row of limits, sets aside what the work
may consume at most, and adds up, in a statement of its own, what the tenant has: the second of two
transactions sees all of the first. Which shards are open is only looked at where all reservations
that there are would be too much. A reservation counts for as long as its shard is open; what the
shard has consumed is written by the very transaction that closes it, so nothing is counted twice or
not at all, whatever ends it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.db.stored_bytes import stored_bytes
from shared.db.tenants import get_terms
from shared.db.usage import SPENT
from shared.errors import BudgetExceeded, PressrunError, QuotaExceeded
from shared.lifecycle.usage import priced
from shared.quotas import OPEN_ENDED, Limits, Reservation, Standing, judge, most_cost, of_body
from shared.quotas.limits import OF_WORK
from shared.states import OPEN_JOB, ShardState, Stage, open_states, sql_list

BIND_WORK = " OR ".join(f"l.{name} IS NOT NULL" for name in OF_WORK)
"""Whether the row ``l`` of ``tenant_limits`` has a limit that accepted work counts for."""

_OPEN = sql_list(open_states(ShardState))

MOST_LET_GO = 10_000
"""Reservations that are removed in one go."""

_LIMITS = text(f"""
SELECT {", ".join(Limits._fields)} FROM tenant_limits WHERE tenant_id = :tenant
   FOR NO KEY UPDATE
""")

_WORK = text(f"""
SELECT s.id, s.ordinal, s.stage, coalesce(t.endpoint, j.endpoint) AS endpoint,
       CAST(coalesce(t.spec, j.spec) AS text) AS spec, CAST(m.settings AS text) AS settings,
       CAST(priced.detail AS text) AS detail
  FROM shards s JOIN jobs j ON j.id = s.job_id
  LEFT JOIN steps t ON t.shard_id = s.id
  {priced("coalesce(t.model, j.model)")}
 WHERE s.job_id = ANY(:jobs) AND s.tenant_id = :tenant AND s.state IN ({_OPEN})
   AND NOT EXISTS (SELECT 1 FROM reservations r WHERE r.shard_id = s.id)
""")

_RESERVE = text("""
INSERT INTO reservations (shard_id, tenant_id, rows, tokens, cost)
SELECT d.id, :tenant, d.rows, d.tokens, d.cost
  FROM unnest(CAST(:ids AS bigint[]), CAST(:rows AS bigint[]), CAST(:tokens AS bigint[]),
              CAST(:costs AS bigint[])) AS d (id, rows, tokens, cost)
""")

_RESERVE_OPEN = text(f"""
INSERT INTO reservations (shard_id, tenant_id, rows, tokens, cost)
SELECT s.id, s.tenant_id, s.row_count, 0, 0
  FROM jobs j JOIN shards s ON s.job_id = j.id
 WHERE j.tenant_id = :tenant AND j.state IN ({OPEN_JOB}) AND s.state IN ({_OPEN})
   AND s.stage IN ('generate', 'step', 'train')
    ON CONFLICT (shard_id) DO NOTHING
""")

# One look for each reservation: joined, all shards there ever were would be read.
_STATE = "(SELECT s.state FROM shards s WHERE s.id = r.shard_id)"

_LET_GO = text(f"""
DELETE FROM reservations WHERE shard_id = ANY(ARRAY(
    SELECT r.shard_id FROM reservations r
     WHERE {_STATE} NOT IN ({_OPEN}) LIMIT :limit FOR UPDATE SKIP LOCKED))
""")

_HELD = f"""
SELECT held.rows, held.tokens, held.cost, {SPENT.columns}
  FROM (SELECT CAST(coalesce(sum(r.rows), 0) AS bigint) AS rows,
               CAST(coalesce(sum(r.tokens), 0) AS bigint) AS tokens,
               CAST(coalesce(sum(r.cost), 0) AS bigint) AS cost
          FROM reservations r WHERE r.tenant_id = :tenant {{counted}}) held
 CROSS JOIN {SPENT.table}
"""
_STANDING = text(_HELD.format(counted=f"AND {_STATE} IN ({_OPEN})"))
# What has ended and was not let go of is in it twice: nobody has more than this.
_AT_MOST = text(_HELD.format(counted=""))


def hold(
    connection: Connection,
    tenant_id: str,
    job_ids: Collection[str],
    known: Mapping[int, Reservation] | None = None,
) -> None:
    """Sets aside what the open shards of these jobs of the tenant, new in this transaction, may
    consume. ``known`` is that of shards by ordinal, where it takes more than a look to tell.

    Raises QuotaExceeded or BudgetExceeded when the tenant may not have that: roll back.
    """
    limits = limits_of(connection, tenant_id)
    if limits is None or not limits.bind_work:
        return
    work = connection.execute(_WORK, {"tenant": tenant_id, "jobs": list(job_ids)}).all()
    asked = [_reservation(shard, known or {}) for shard in work]
    connection.execute(
        _RESERVE,
        {
            "tenant": tenant_id,
            "ids": [shard.id for shard in work],
            "rows": [item.rows for item in asked],
            "tokens": [item.tokens for item in asked],
            "costs": [item.cost for item in asked],
        },
    )
    total = sum(asked, Reservation())
    at_most = connection.execute(_AT_MOST, {"tenant": tenant_id}).one()
    try:
        judge(limits, Standing._make(at_most), total)
    except (QuotaExceeded, BudgetExceeded):
        judge(limits, standing_of(connection, tenant_id), total)


def let_go(connection: Connection, *, limit: int = MOST_LET_GO) -> int:
    """Removes reservations of shards that have ended, which count for nothing any more; returns
    how many. Any number of processes may do it at once."""
    return connection.execute(_LET_GO, {"limit": limit}).rowcount


def refusal_of(connection: Connection, tenant_id: str, asked: Reservation) -> PressrunError | None:
    """Why the tenant might not have this work at this moment; nothing is set aside or locked."""
    terms = get_terms(connection, tenant_id)
    if terms is None or not terms.limits.bind_work:
        return None
    held = standing_of(connection, tenant_id)
    both = held._replace(
        open_rows=held.open_rows + asked.rows,
        open_tokens=held.open_tokens + asked.tokens,
        open_cost=held.open_cost + asked.cost,
    )
    try:
        judge(terms.limits, both, asked)
    except (QuotaExceeded, BudgetExceeded) as error:
        return error
    return None


def hold_open(connection: Connection, tenant_id: str) -> None:
    """Counts the rows of work that was accepted before the tenant had limits. What it consumes
    counts once it has ended."""
    limits = limits_of(connection, tenant_id)
    if limits is not None and limits.bind_work:
        connection.execute(_RESERVE_OPEN, {"tenant": tenant_id})


def hold_bytes(connection: Connection, tenant_id: str) -> None:
    """For a transaction that has just added to what the tenant stores. Raises QuotaExceeded when
    that is too much now: roll back, and remove the object."""
    limits = limits_of(connection, tenant_id)
    if limits is None or limits.stored_bytes is None:
        return
    if stored_bytes(connection, tenant_id) > limits.stored_bytes:
        raise QuotaExceeded(
            f"the tenant's quota 'stored_bytes' is {limits.stored_bytes}: delete files first",
            param="stored_bytes",
        )


def limits_of(connection: Connection, tenant_id: str) -> Limits | None:
    """The tenant's limits; other transactions that ask wait for the end of this one."""
    row = connection.execute(_LIMITS, {"tenant": tenant_id}).one_or_none()
    return None if row is None else Limits._make(row)


def standing_of(connection: Connection, tenant_id: str) -> Standing:
    """What the tenant has accepted and consumed; exact after ``limits_of`` in one transaction."""
    return Standing._make(connection.execute(_STANDING, {"tenant": tenant_id}).one())


def _reservation(shard: Row[Any], known: Mapping[int, Reservation]) -> Reservation:
    price = json.loads(shard.detail or "{}").get("price")
    if shard.stage == Stage.TRAIN and shard.ordinal in known:
        tokens = known[shard.ordinal].tokens
        return replace(known[shard.ordinal], cost=most_cost(price, trained_tokens=tokens))
    if shard.stage == Stage.GENERATE and shard.ordinal in known:
        return known[shard.ordinal]
    if shard.stage not in {Stage.GENERATE, Stage.STEP}:
        # What validation finds is held when it has found it; measuring tells nobody beforehand.
        return Reservation(int(shard.stage == Stage.TRAIN), is_open_ended=True)
    if shard.settings is None:  # of no model: upkeep packs what the others made
        return OPEN_ENDED if shard.stage != Stage.STEP else Reservation()
    return of_body(shard.endpoint, json.loads(shard.spec), json.loads(shard.settings), price)
