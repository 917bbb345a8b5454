"""Sending deliveries: leased to one sender, tried, tried again later, given up.

A lease is nothing but a ``next_attempt_at`` in the future: of a sender that was killed, the
delivery is due again when that has come, with the same ``webhook-id``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.lifecycle.webhooks import cancel_deliveries
from shared.webhook_retries import FAILURES_TO_OPEN, open_seconds, pause_seconds

KEPT_ATTEMPTS = 32
"""Of a delivery that was replayed over and over, the latest ones are kept."""
GONE = 410

_TURN_LOCK = 7_703_009
# Two that count what is under way would both fill the room; the second one leaves it to the first.
_TURN = text("""
SELECT pg_try_advisory_xact_lock(:lock)
 WHERE EXISTS (SELECT 1 FROM webhook_deliveries WHERE status = 'pending')
""")

# A loose index scan: one probe for each receiver that is waited for, however much waits for it. The
# clock in subqueries bounds the scans of the index, and so does the length of leases: a receiver
# may have many that are not due for hours. Leases of twice as long may be overlooked.
_CLAIM = text("""
WITH RECURSIVE waiting (circuit) AS (
    (SELECT circuit FROM webhook_deliveries WHERE status = 'pending' ORDER BY circuit LIMIT 1)
    UNION ALL
    SELECT (SELECT d.circuit FROM webhook_deliveries d
             WHERE d.status = 'pending' AND d.circuit > w.circuit ORDER BY d.circuit LIMIT 1)
      FROM waiting w WHERE w.circuit IS NOT NULL
), picked AS (
    SELECT next.id, next.tenant_id, next.turn, next.due
      FROM waiting w
      LEFT JOIN webhook_circuits c ON c.key = w.circuit
     CROSS JOIN LATERAL (
           SELECT greatest(0, CASE WHEN c.failures >= :threshold THEN 1 ELSE :each END - count(*))
                  AS free
             FROM webhook_deliveries u
            WHERE u.circuit = w.circuit AND u.status = 'pending' AND u.lease IS NOT NULL
              AND u.next_attempt_at > (SELECT clock_timestamp())
              AND u.next_attempt_at <= (SELECT clock_timestamp())
                    + 2 * make_interval(secs => CAST(:lease_seconds AS double precision))) room
     CROSS JOIN LATERAL (
           SELECT held.id, held.tenant_id, held.next_attempt_at AS due,
                  row_number() OVER (ORDER BY held.next_attempt_at) AS turn
             FROM (SELECT q.id, q.tenant_id, q.next_attempt_at FROM webhook_deliveries q
                    WHERE q.circuit = w.circuit AND q.status = 'pending'
                      AND q.next_attempt_at <= (SELECT clock_timestamp())
                    ORDER BY q.next_attempt_at LIMIT room.free FOR UPDATE SKIP LOCKED) held) next
     WHERE w.circuit IS NOT NULL AND (c.open_until IS NULL OR c.open_until <= clock_timestamp())
       AND NOT EXISTS (SELECT 1 FROM webhook_endpoints e
                        WHERE e.id = w.circuit
                          AND (e.disabled_at IS NOT NULL OR e.deleted_at IS NOT NULL))
), chosen AS (
    -- Tenants take turns, and the receivers of each: anybody can name a thousand that hang.
    SELECT id FROM picked
     ORDER BY row_number() OVER (PARTITION BY tenant_id ORDER BY turn, due), due LIMIT :limit
), leased AS (
    UPDATE webhook_deliveries d
       SET lease = :lease, next_attempt_at = clock_timestamp()
                           + make_interval(secs => CAST(:lease_seconds AS double precision))
      FROM chosen WHERE d.id = chosen.id
    RETURNING d.id, d.tenant_id, d.endpoint_id, d.url, d.circuit, d.event_id, d.event_type,
              d.event_at, d.about, d.test, d.attempt_n
)
SELECT l.id, l.endpoint_id, coalesce(w.url, l.url) AS url, l.circuit, l.event_id, l.event_type,
       CAST(floor(extract(epoch FROM l.event_at)) AS bigint) AS event_at, l.about, l.test,
       l.attempt_n,
       coalesce(w.secret, s.secret) AS secret,
       CASE WHEN w.id IS NOT NULL
            THEN CASE WHEN w.old_secret_until > clock_timestamp() THEN w.old_secret END
            WHEN s.old_secret_until > clock_timestamp() THEN s.old_secret END AS old_secret
  FROM leased l
  LEFT JOIN webhook_endpoints w ON w.id = l.endpoint_id
  LEFT JOIN webhook_secrets s ON s.tenant_id = l.tenant_id
""")

_RECORD = text("""
UPDATE webhook_deliveries d
   SET status = a.status, attempt_n = d.attempt_n + 1, lease = NULL,
       attempts = jsonb_path_query_array(d.attempts || CAST(a.attempt AS jsonb),
                                         CAST(:latest AS jsonpath)),
       status_code = a.status_code, error_code = a.error_code,
       next_attempt_at = CASE WHEN a.status = 'pending' THEN clock_timestamp()
                                   + make_interval(secs => a.pause) END,
       ended_at = CASE WHEN a.status <> 'pending' THEN clock_timestamp() END
  FROM unnest(CAST(:ids AS text[]), CAST(:statuses AS text[]), CAST(:attempts AS text[]),
              CAST(:codes AS int[]), CAST(:errors AS text[]),
              CAST(:pauses AS double precision[]))
       AS a (id, status, attempt, status_code, error_code, pause)
 WHERE d.id = a.id AND d.lease = :lease AND d.status = 'pending'
RETURNING d.id
""")

_HEALTHY = text("DELETE FROM webhook_circuits WHERE key = ANY(:keys)")

_FAILED = text("""
INSERT INTO webhook_circuits AS c (key, failures) VALUES (:key, :failures)
    ON CONFLICT (key) DO UPDATE SET failures = c.failures + excluded.failures,
       updated_at = clock_timestamp()
RETURNING c.failures
""")

_OPEN = text("""
UPDATE webhook_circuits
   SET open_until = clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))
 WHERE key = :key
""")

_DISABLE = text("""
UPDATE webhook_endpoints SET disabled_at = clock_timestamp(), disabled_reason = 'gone'
 WHERE id = ANY(:endpoints) AND disabled_at IS NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedDelivery:
    """A webhook to be sent now, by whoever leased it."""

    id: str
    endpoint_id: str | None
    url: str
    circuit: str
    event_id: str
    event_type: str
    event_at: int
    """Unix seconds."""
    about: str
    test: bool
    attempt_n: int
    """Attempts before this one, since it was made or replayed."""
    secret: str | None
    old_secret: str | None
    """Of a rotation, for as long as receivers may still know no other."""

    @property
    def keys(self) -> list[str]:
        """What to sign with."""
        return [key for key in (self.secret, self.old_secret) if key is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of sending a delivery."""

    delivery: LeasedDelivery
    at: float
    """When it was begun; Unix seconds, by the sender's clock."""
    milliseconds: int
    status_code: int | None = None
    """The receiver's answer, None when there was none."""
    error_code: str | None = None
    """None for a delivery that was made."""
    retry_after: float | None = None
    """Seconds that the receiver asked for."""
    final: bool = False
    """Another attempt would fail in the same way."""

    def as_json(self) -> str:
        told = {
            "at": round(self.at, 3),
            "milliseconds": self.milliseconds,
            "status_code": self.status_code,
            "error_code": self.error_code,
        }
        return json.dumps([told])


def claim_deliveries(
    connection: Connection, *, lease: str, lease_seconds: float, limit: int, each: int
) -> list[LeasedDelivery]:
    """Leases up to ``limit`` deliveries that are due, at most ``each`` of one receiver under way
    at a time, wherever they are sent from; tenants take turns, and the receivers of each. For a
    transaction of its own."""
    if not connection.execute(_TURN, {"lock": _TURN_LOCK}).scalar():
        return []
    values = {"lease": lease, "lease_seconds": lease_seconds, "limit": limit, "each": each}
    rows = connection.execute(_CLAIM, values | {"threshold": FAILURES_TO_OPEN})
    return [LeasedDelivery(**row._mapping) for row in rows]


def record_attempts(connection: Connection, lease: str, attempts: Sequence[Attempt]) -> int:
    """Writes what came of leased deliveries. Those whose lease has run out meanwhile are somebody
    else's, and left alone. Returns how many were recorded."""
    verdicts = [_verdict(attempt) for attempt in attempts]
    rows = connection.execute(
        _RECORD,
        {
            "lease": lease,
            "ids": [attempt.delivery.id for attempt in attempts],
            "statuses": [status for status, _ in verdicts],
            "attempts": [attempt.as_json() for attempt in attempts],
            "codes": [attempt.status_code for attempt in attempts],
            "errors": [attempt.error_code for attempt in attempts],
            "pauses": [pause for _, pause in verdicts],
            "latest": f"$[last - {KEPT_ATTEMPTS - 1} to last]",
        },
    )
    recorded = set(rows.scalars())
    mine = [attempt for attempt in attempts if attempt.delivery.id in recorded]
    _judge_receivers(connection, [attempt for attempt in mine if not attempt.delivery.test])
    return len(recorded)


def _verdict(attempt: Attempt) -> tuple[str, float | None]:
    """The delivery's status, and the pause before its next attempt."""
    if attempt.error_code is None:
        return "delivered", None
    if attempt.final or attempt.delivery.test:
        return "failed", None
    pause = pause_seconds(attempt.delivery.attempt_n + 1, attempt.retry_after)
    return ("failed", None) if pause is None else ("pending", pause)


def _judge_receivers(connection: Connection, attempts: Iterable[Attempt]) -> None:
    """Counts failures in a row, and opens the circuits of those that have too many. Within one
    call, a single success is news enough."""
    failures: dict[str, int] = {}
    healthy: set[str] = set()
    gone: set[str] = set()
    for attempt in attempts:
        key = attempt.delivery.circuit
        if attempt.error_code is None:
            healthy.add(key)
            continue
        failures[key] = failures.get(key, 0) + 1
        if attempt.status_code == GONE and attempt.delivery.endpoint_id is not None:
            gone.add(attempt.delivery.endpoint_id)
    if healthy:
        connection.execute(_HEALTHY, {"keys": sorted(healthy)})
    for key in sorted(failures.keys() - healthy):
        row = {"key": key, "failures": failures[key]}
        seconds = open_seconds(connection.execute(_FAILED, row).scalar_one())
        if seconds:
            connection.execute(_OPEN, {"key": key, "seconds": seconds})
    if gone:
        connection.execute(_DISABLE, {"endpoints": sorted(gone)})
        cancel_deliveries(connection, sorted(gone), "endpoint_disabled")
