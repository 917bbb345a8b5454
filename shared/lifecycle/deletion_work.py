"""Carrying deletions out: leased by moving ``due_at`` into the future, in steps that anybody may
repeat after any of them. A record is complete when nothing was left to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.lifecycle.stop import request_stop
from shared.states import OPEN_JOB, StopReason

LEASE_SECONDS = 15.0
"""Each step renews it; whoever was killed has it taken over after so long."""
STOPPED_AT_ONCE = 100

_LEASE = text("""
WITH due AS (
    SELECT id FROM deletions WHERE completed_at IS NULL AND due_at <= (SELECT clock_timestamp())
     ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
UPDATE deletions d SET due_at = clock_timestamp() + make_interval(secs => :lease)
  FROM due WHERE d.id = due.id
RETURNING d.id, d.tenant_id, d.kind, d.target, d.jobs, d.keys,
          d.settles_at <= clock_timestamp() AS settled
""")

_RENEW = text("""
UPDATE deletions SET due_at = clock_timestamp() + make_interval(secs => :lease) WHERE id = :id
""")

# Not sooner than it can be complete, unless that is long.
_DEFER = text("""
UPDATE deletions
   SET due_at = clock_timestamp()
              + least(greatest(settles_at - clock_timestamp(), interval '1 second'),
                      interval '1 minute')
 WHERE id = :id AND completed_at IS NULL
""")

_ADD_ROWS = text("""
UPDATE deletions SET rows = rows || (
           SELECT jsonb_object_agg(n.key, coalesce(CAST(rows ->> n.key AS bigint), 0)
                                          + CAST(n.value AS bigint))
             FROM jsonb_each_text(CAST(:removed AS jsonb)) n),
       due_at = clock_timestamp() + make_interval(secs => :lease)
 WHERE id = :id
""")

_SETTLE = text("""
UPDATE deletions SET settles_at = greatest(
           settles_at, clock_timestamp() + make_interval(secs => :grace)),
       usage = (SELECT jsonb_build_object(
                           'rows', coalesce(sum(u.rows), 0),
                           'input_tokens', coalesce(sum(u.input_tokens), 0),
                           'output_tokens', coalesce(sum(u.output_tokens), 0))
                  FROM (SELECT rows, input_tokens, output_tokens FROM usage_days
                         WHERE tenant_id = :tenant UNION ALL
                        SELECT rows, input_tokens, output_tokens FROM usage
                         WHERE tenant_id = :tenant AND NOT counted) u)
 WHERE id = :id AND usage IS NULL
RETURNING settles_at <= clock_timestamp()
""")

_HASHES = text("""
SELECT key_sha256 FROM deletion_objects WHERE deletion_id = :id ORDER BY key_sha256
""")

_COMPLETE = text("""
UPDATE deletions SET completed_at = clock_timestamp(), keys = '{}', objects = :objects,
       keys_sha256 = :digest
 WHERE id = :id AND completed_at IS NULL
""")

_OPEN = text(f"""
SELECT id, stop_reason IS NOT NULL OR stage = 'assemble' AS ending FROM jobs
 WHERE tenant_id = :tenant AND state IN ({OPEN_JOB})
 ORDER BY ending LIMIT :limit
""")

# What a disabled tenant has to write before its jobs can end runs all the same.
_LET_END = text("""
UPDATE tenants SET max_running_shards = NULL
 WHERE id = :tenant AND max_running_shards IS NOT NULL
""")

_RUNNING = text("""
SELECT EXISTS (SELECT 1 FROM shards WHERE job_id = ANY(:jobs) AND state = 'running')
    OR EXISTS (SELECT 1 FROM models WHERE job_id = ANY(:jobs) AND cleaned_at IS NULL)
""")

_RUNNING_OF_TENANT = text("""
SELECT EXISTS (SELECT 1 FROM shards WHERE tenant_id = :tenant AND state = 'running')
""")

_MODEL = text("DELETE FROM models WHERE id = :id AND tenant_id = :tenant")
_MODEL_LEFT = text("SELECT 1 FROM models WHERE id = :id AND tenant_id = :tenant")
_TENANT = text("DELETE FROM tenants WHERE id = :tenant")


class PendingDeletion(NamedTuple):
    """A deletion that is leased to whoever has this."""

    id: str
    tenant_id: str
    kind: str
    target: str
    jobs: list[str]
    keys: list[str]
    settled: bool
    """Whoever could write late has stopped."""


def lease_deletion(connection: Connection) -> PendingDeletion | None:
    """The deletion that has waited longest, for ``LEASE_SECONDS``; None when none is due."""
    row = connection.execute(_LEASE, {"lease": LEASE_SECONDS}).one_or_none()
    return None if row is None else PendingDeletion._make(row)


def renew_deletion(connection: Connection, deletion_id: str) -> None:
    connection.execute(_RENEW, {"id": deletion_id, "lease": LEASE_SECONDS})


def defer_deletion(connection: Connection, deletion_id: str) -> None:
    """It is looked at again once it can be complete, in a minute at most."""
    connection.execute(_DEFER, {"id": deletion_id})


def count_removed(connection: Connection, deletion_id: str, removed: Mapping[str, int]) -> None:
    """Adds to the record what the same transaction removes, and renews the lease."""
    found = {table: rows for table, rows in removed.items() if rows}
    if found:
        values = {"id": deletion_id, "removed": json.dumps(found), "lease": LEASE_SECONDS}
        connection.execute(_ADD_ROWS, values)


def complete_deletion(connection: Connection, deletion_id: str) -> None:
    """Closes the record, with the number of the removed objects and a hash over their keys'."""
    hashes = list(connection.execute(_HASHES, {"id": deletion_id}).scalars())
    values = {"id": deletion_id, "objects": len(hashes), "digest": digest_of(hashes)}
    connection.execute(_COMPLETE, values)


def digest_of(hashes: Sequence[bytes]) -> str:
    """SHA-256, in hex, of the sorted hashes one after another."""
    return sha256(b"".join(sorted(bytes(one) for one in hashes))).hexdigest()


def stop_tenant(connection: Connection, tenant_id: str) -> bool:
    """Asks some of the tenant's open jobs to stop. True: none is open, and no shard runs."""
    found = connection.execute(_OPEN, {"tenant": tenant_id, "limit": STOPPED_AT_ONCE}).all()
    for job in found:
        if not job.ending:
            reason = StopReason.CANCELLED
            request_stop(connection, tenant_id=tenant_id, job_id=job.id, reason=reason)
    if all(job.ending for job in found):
        connection.execute(_LET_END, {"tenant": tenant_id})
    return not found and not connection.execute(_RUNNING_OF_TENANT, {"tenant": tenant_id}).scalar()


def settle_tenant(
    connection: Connection, deletion: PendingDeletion, *, grace_seconds: float
) -> bool:
    """Notes, once, what the tenant has consumed, and when nobody can be writing for it any more.
    Returns whether that is over."""
    values = {"id": deletion.id, "tenant": deletion.tenant_id, "grace": grace_seconds}
    settled = connection.execute(_SETTLE, values).scalar()
    return deletion.settled if settled is None else bool(settled)


def is_held(connection: Connection, jobs: Sequence[str]) -> bool:
    """Whether somebody runs on for one of the jobs, or the files of a model of theirs are there."""
    return bool(connection.execute(_RUNNING, {"jobs": list(jobs)}).scalar())


def remove_model(connection: Connection, tenant_id: str, model_id: str) -> int:
    """Removes the row of a model whose files are gone."""
    return connection.execute(_MODEL, {"id": model_id, "tenant": tenant_id}).rowcount


def is_model_left(connection: Connection, tenant_id: str, model_id: str) -> bool:
    values = {"id": model_id, "tenant": tenant_id}
    return connection.execute(_MODEL_LEFT, values).scalar() is not None


def remove_tenant(connection: Connection, tenant_id: str) -> int:
    """Removes the tenant itself. Raises sqlalchemy's IntegrityError while anything is its own."""
    return connection.execute(_TENANT, {"tenant": tenant_id}).rowcount
