"""Queries of the webhook cleaner: what has outlived its use."""

from __future__ import annotations

from sqlalchemy import Connection, text

KEEP_DAYS = 30
"""Ended deliveries are listed, and can be replayed, for so long."""
GIVE_UP_DAYS = 7
"""A delivery whose receiver was down for all of it is given up; it can still be replayed."""
LIMIT = 5_000

# Not those that waited for a sender rather than for their receiver.
_GIVE_UP = text(f"""
WITH old AS (
    SELECT d.id FROM webhook_deliveries d
     WHERE d.status = 'pending' AND d.next_attempt_at <= clock_timestamp()
       AND d.queued_at < clock_timestamp() - interval '{GIVE_UP_DAYS} days'
       AND (d.attempt_n > 0 OR EXISTS (SELECT 1 FROM webhook_circuits c WHERE c.key = d.circuit))
     LIMIT {LIMIT} FOR UPDATE OF d SKIP LOCKED)
UPDATE webhook_deliveries d
   SET status = 'failed', error_code = 'too_old', next_attempt_at = NULL, lease = NULL,
       ended_at = clock_timestamp()
  FROM old WHERE d.id = old.id
""")

# Made in the instant in which somebody disabled or deleted their endpoint.
_CANCEL_STRAYS = text(f"""
WITH stray AS (
    SELECT d.id FROM webhook_deliveries d JOIN webhook_endpoints w ON w.id = d.endpoint_id
     WHERE d.status = 'pending' AND NOT d.test
       AND (w.deleted_at IS NOT NULL OR w.disabled_at IS NOT NULL)
     LIMIT {LIMIT} FOR UPDATE OF d SKIP LOCKED)
UPDATE webhook_deliveries d
   SET status = 'cancelled', error_code = 'endpoint_disabled', next_attempt_at = NULL,
       lease = NULL, ended_at = clock_timestamp()
  FROM stray WHERE d.id = stray.id
""")

# The clock in a subquery bounds the scan of the index: most ended deliveries are to stay.
_FORGET = text(f"""
DELETE FROM webhook_deliveries
 WHERE id = ANY(ARRAY(SELECT id FROM webhook_deliveries
                       WHERE ended_at < (SELECT clock_timestamp()) - interval '{KEEP_DAYS} days'
                       ORDER BY ended_at LIMIT {LIMIT}))
""")

_FORGET_OF_DELETED = text(f"""
DELETE FROM webhook_deliveries
 WHERE id IN (SELECT d.id FROM webhook_deliveries d
               JOIN webhook_endpoints w ON w.id = d.endpoint_id
              WHERE w.deleted_at IS NOT NULL LIMIT {LIMIT})
""")

_FORGET_ENDPOINTS = text("""
DELETE FROM webhook_endpoints w
 WHERE w.deleted_at IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.endpoint_id = w.id)
""")

_FORGET_CIRCUITS = text("""
DELETE FROM webhook_circuits c
 WHERE c.updated_at < clock_timestamp() - interval '7 days'
   AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d
                    WHERE d.circuit = c.key AND d.status = 'pending')
""")

_FORGET_OLD_SECRETS = tuple(
    text(
        f"UPDATE {table} SET old_secret = NULL, old_secret_until = NULL"
        " WHERE old_secret_until < clock_timestamp()"
    )
    for table in ("webhook_endpoints", "webhook_secrets")
)


def clean_webhooks(connection: Connection) -> int:
    """One round over all that is due, in portions; each statement may commit by itself. Returns
    how many deliveries were ended or removed."""
    done = connection.execute(_GIVE_UP).rowcount + connection.execute(_CANCEL_STRAYS).rowcount
    done += connection.execute(_FORGET).rowcount
    done += connection.execute(_FORGET_OF_DELETED).rowcount
    connection.execute(_FORGET_ENDPOINTS)
    connection.execute(_FORGET_CIRCUITS)
    for statement in _FORGET_OLD_SECRETS:
        connection.execute(statement)
    return done
