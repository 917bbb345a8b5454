"""Monitors, as upkeep works for them: whose turn it is, texts of their source, and batches.

A claim is a lease and an epoch in the monitor's row. Every change holds that row first, and is only
made while the epoch is still the claim's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.monitors import gather
from shared.lifecycle.schedule_ends import webhook_of
from shared.lifecycle.schedules_seen import see_rows
from shared.lifecycle.webhooks import JobWebhook

SEEN_DAYS = 90
"""A row that was out of a monitor's source so long is new again."""

_CLAIM = text("""
UPDATE monitors SET epoch = epoch + 1, readers_out = readers_out + 1,
       lease_until = clock_timestamp() + make_interval(secs => :lease)
 WHERE id = (
       SELECT m.id FROM monitors m JOIN tenants t ON t.id = m.tenant_id AND t.disabled_at IS NULL
        WHERE m.next_look_at <= clock_timestamp()
          AND (m.readers_out > 0) = coalesce(:alone, m.readers_out > 0)
          AND (m.lease_until IS NULL OR m.lease_until < clock_timestamp())
          AND (m.state = 'active'
               OR EXISTS (SELECT 1 FROM monitor_batches b WHERE b.monitor_id = m.id))
        ORDER BY m.next_look_at LIMIT 1 FOR UPDATE OF m SKIP LOCKED)
RETURNING id, tenant_id, epoch, state, model, label, share_limit, minimum, window_seconds, source,
          text_column, webhook, etag, last_modified, next_read_at <= clock_timestamp() AS reads,
          readers_out - 1 AS readers_lost
""")

_HOLD = text("""
SELECT id FROM monitors WHERE id = :monitor AND epoch = :epoch FOR NO KEY UPDATE
""")

_RELEASE = text("""
UPDATE monitors m
   SET lease_until = NULL, readers_out = 0, error_code = coalesce(:code, CASE WHEN :good THEN NULL
                                                             ELSE m.error_code END),
       error_message = coalesce(:message, CASE WHEN :good THEN NULL ELSE m.error_message END),
       next_look_at = greatest(
           clock_timestamp() + make_interval(secs => :least),
           least(CASE WHEN EXISTS (SELECT 1 FROM monitor_batches b WHERE b.monitor_id = m.id)
                      THEN clock_timestamp() + make_interval(secs => :least) END,
                 (SELECT min(w.ends_at) FROM monitor_texts t
                    JOIN monitor_windows w ON w.id = t.window_id WHERE t.monitor_id = m.id),
                 m.next_read_at, clock_timestamp() + interval '1 hour'))
 WHERE m.id = :monitor AND m.epoch = :epoch
""")

_HAS_READ = text("""
UPDATE monitors SET etag = :etag, last_modified = :modified,
       next_read_at = clock_timestamp() + make_interval(secs => window_seconds)
 WHERE id = :monitor
""")

_READ_LATER = text("""
UPDATE monitors SET next_read_at = clock_timestamp() + make_interval(secs => window_seconds)
 WHERE id = :monitor
""")

_OPEN_BATCH = text("""
INSERT INTO monitor_batches (job_id, tenant_id, monitor_id) VALUES (:job, :tenant, :monitor)
""")
_TAKE = text("""
UPDATE monitor_texts SET job_id = :job
 WHERE monitor_id = :monitor AND job_id IS NULL AND id = ANY(:ids)
""")

# A batch that was deleted takes its row along, and judges nothing.
_LET_GO = text("""
UPDATE monitor_texts t SET job_id = NULL
 WHERE t.monitor_id = :monitor AND t.job_id IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM monitor_batches b WHERE b.job_id = t.job_id)
""")


@dataclass(frozen=True, slots=True)
class MonitorClaim:
    """A monitor whose turn it is, this caller's while the epoch is the same."""

    monitor_id: str
    tenant_id: str
    epoch: int
    is_active: bool
    model: str
    label: str
    limit: float
    minimum: int
    window_seconds: int
    source: dict[str, Any] | None
    """To be read now; None: not yet, or there is none."""
    text_column: str | None
    webhook: JobWebhook | None
    etag: str | None
    last_modified: str | None
    readers_lost: int = 0
    """Those before this one who did not come back, since one did."""


def claim_monitor(
    connection: Connection, *, lease_seconds: float, alone: bool | None = None
) -> MonitorClaim | None:
    """The one that has waited longest for a look; None: there is none. ``alone``: of those whose
    last reader did not come back, to be worked on beside no other; False: of the rest."""
    values = {"lease": lease_seconds, "alone": alone}
    row = connection.execute(_CLAIM, values).one_or_none()
    if row is None:
        return None
    return MonitorClaim(
        monitor_id=row.id,
        tenant_id=row.tenant_id,
        epoch=row.epoch,
        is_active=row.state == "active",
        model=row.model,
        label=row.label,
        limit=row.share_limit,
        minimum=row.minimum,
        window_seconds=row.window_seconds,
        source=row.source if row.reads else None,
        text_column=row.text_column,
        webhook=webhook_of(row.webhook),
        etag=row.etag,
        last_modified=row.last_modified,
        readers_lost=row.readers_lost,
    )


def hold_monitor(connection: Connection, claim: MonitorClaim) -> bool:
    """Whether it is still this claim's; it stays so until the transaction ends."""
    values = {"monitor": claim.monitor_id, "epoch": claim.epoch}
    return connection.execute(_HOLD, values).scalar() is not None


def release_monitor(
    connection: Connection,
    claim: MonitorClaim,
    *,
    error: tuple[str, str] | None,
    worked: bool,
    pause_seconds: float,
) -> None:
    """Until the next look; ``error`` is shown to its tenant, until something ``worked``."""
    code, message = error or (None, None)
    connection.execute(
        _RELEASE,
        {
            "monitor": claim.monitor_id,
            "epoch": claim.epoch,
            "code": code,
            "message": message,
            "good": worked,
            "least": pause_seconds,
        },
    )


def take_rows(
    connection: Connection,
    claim: MonitorClaim,
    *,
    new: Mapping[bytes, str],
    again: Sequence[bytes],
    marks: tuple[str | None, str | None],
) -> None:
    """Makes rows of the source seen, and their texts wait; ``new`` is each row's hash and text.
    The caller holds the monitor. Raises QuotaExceeded when too many wait."""
    see_rows(
        connection,
        owner_id=claim.monitor_id,
        tenant_id=claim.tenant_id,
        run_id=None,
        new=list(new),
        again=again,
        days=SEEN_DAYS,
    )
    texts = list(new.values())
    if texts:
        gather(connection, claim.tenant_id, claim.monitor_id, claim.window_seconds, texts)
    etag, modified = marks
    values = {"monitor": claim.monitor_id, "etag": etag, "modified": modified}
    connection.execute(_HAS_READ, values)


def read_later(connection: Connection, claim: MonitorClaim) -> None:
    """The source is as it was, or could not be read. The caller holds the monitor."""
    connection.execute(_READ_LATER, {"monitor": claim.monitor_id})


def open_monitor_batch(
    connection: Connection, claim: MonitorClaim, job_id: str, text_ids: Sequence[int]
) -> None:
    """The batch, which the same transaction submits, judges these texts. The caller holds the
    monitor."""
    values = {"job": job_id, "tenant": claim.tenant_id, "monitor": claim.monitor_id}
    connection.execute(_OPEN_BATCH, values)
    connection.execute(_TAKE, {"job": job_id, "monitor": claim.monitor_id, "ids": list(text_ids)})


def let_texts_go(connection: Connection, claim: MonitorClaim) -> None:
    """Texts of a batch that was deleted wait again. The caller holds the monitor."""
    connection.execute(_LET_GO, {"monitor": claim.monitor_id})
