"""From the end of a job to deliveries: the events of a job are the outbox.

Whatever ends a job writes its event in the same transaction, so nothing has to remember webhooks.
``announce_ends`` comes by later and makes the deliveries, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.ids import new_delivery_id, new_webhook_event_id
from shared.translation.responses import CUT
from shared.webhook_events import UNANNOUNCED, end_told, event_type

REPLAY_AT_ONCE = 10_000

_ATTACH = text("""
INSERT INTO job_webhooks (job_id, url, events) VALUES (:job, :url, CAST(:events AS text[]))
""")

_TAKE_ENDS = text(f"""
WITH told AS (
    SELECT id FROM events WHERE {UNANNOUNCED}
     ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
UPDATE events e SET announced = true
  FROM told, jobs j WHERE e.id = told.id AND j.id = e.job_id
RETURNING e.id, e.tenant_id, e.job_id, e.type, e.created_at, j.kind,
          j.kind = 'response' AND coalesce(CAST(j.result AS text) ~ '{CUT}', false) AS cut,
          j.kind = 'batch' AND EXISTS (
              SELECT 1 FROM production_batches b WHERE b.job_id = j.id) AS a_part
""")

_LISTENERS = text("""
SELECT w.id, w.tenant_id, w.event_types, w.disabled_at IS NOT NULL AS disabled
  FROM webhook_endpoints w
 WHERE w.tenant_id = ANY(:tenants) AND w.deleted_at IS NULL
""")

_NOW = text("SELECT clock_timestamp()")

_OF_JOBS = text("SELECT job_id, url, events FROM job_webhooks WHERE job_id = ANY(:jobs)")

_DELIVER = text("""
INSERT INTO webhook_deliveries (id, tenant_id, endpoint_id, url, circuit, event_id, event_type,
                                event_at, about, status, next_attempt_at, error_code, ended_at)
SELECT d.id, d.tenant_id, d.endpoint_id, d.url, d.circuit, d.event_id, d.event_type, d.event_at,
       d.about, CASE WHEN d.disabled THEN 'cancelled' ELSE 'pending' END,
       CASE WHEN NOT d.disabled THEN clock_timestamp() END,
       CASE WHEN d.disabled THEN 'endpoint_disabled' END,
       CASE WHEN d.disabled THEN clock_timestamp() END
  FROM unnest(CAST(:ids AS text[]), CAST(:tenants AS text[]), CAST(:endpoints AS text[]),
              CAST(:urls AS text[]), CAST(:circuits AS text[]), CAST(:events AS text[]),
              CAST(:types AS text[]), CAST(:times AS timestamptz[]), CAST(:abouts AS text[]),
              CAST(:disabled AS boolean[]))
       AS d (id, tenant_id, endpoint_id, url, circuit, event_id, event_type, event_at, about,
             disabled)
""")

_TEST = text("""
INSERT INTO webhook_deliveries (id, tenant_id, endpoint_id, circuit, event_id, event_type, event_at,
                                about, test, status, next_attempt_at)
SELECT :id, w.tenant_id, w.id, w.id || ' test', :event, :type, clock_timestamp(), :about, true,
       'pending', clock_timestamp()
  FROM webhook_endpoints w
 WHERE w.id = :endpoint AND w.tenant_id = :tenant AND w.deleted_at IS NULL
RETURNING id
""")

_REPLAY = text("""
WITH again AS (
    SELECT d.id FROM webhook_deliveries d
     WHERE d.tenant_id = :tenant AND (CAST(:endpoint AS text) IS NULL OR d.endpoint_id = :endpoint)
       AND (CAST(:delivery AS text) IS NULL OR d.id = :delivery)
       AND (CAST(:status AS text) IS NULL OR d.status = :status)
       AND d.created_at >= to_timestamp(CAST(:since AS double precision))
       AND d.status <> 'pending' AND NOT d.test
       AND NOT EXISTS (SELECT 1 FROM webhook_endpoints w WHERE w.id = d.endpoint_id
                          AND (w.deleted_at IS NOT NULL OR w.disabled_at IS NOT NULL))
     ORDER BY d.id LIMIT :limit FOR UPDATE OF d SKIP LOCKED)
UPDATE webhook_deliveries d
   SET status = 'pending', attempt_n = 0, next_attempt_at = clock_timestamp(), lease = NULL,
       status_code = NULL, error_code = NULL, queued_at = clock_timestamp(), ended_at = NULL
  FROM again WHERE d.id = again.id
""")

_CANCEL = text("""
UPDATE webhook_deliveries
   SET status = 'cancelled', error_code = :why, next_attempt_at = NULL, lease = NULL,
       ended_at = clock_timestamp()
 WHERE endpoint_id = ANY(:endpoints) AND status = 'pending' AND NOT test
""")


@dataclass(frozen=True, slots=True)
class JobWebhook:
    """Whom a job's end is told to, beside the tenant's endpoints."""

    url: str
    events: tuple[str, ...] | None = None
    """Only these types; None: the job's end, whatever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewDelivery:
    tenant_id: str
    event_id: str
    event_type: str
    event_at: Any
    about: str
    circuit: str
    endpoint_id: str | None = None
    url: str | None = None
    disabled: bool = False


def attach_webhook(connection: Connection, job_id: str, webhook: JobWebhook | None) -> None:
    """Gives a job its own webhook, in the transaction that submits it; None gives it none."""
    if webhook is not None:
        values = {
            "job": job_id,
            "url": webhook.url,
            "events": None if webhook.events is None else list(webhook.events),
        }
        connection.execute(_ATTACH, values)


def announce_ends(connection: Connection, *, limit: int = 500) -> tuple[int, int]:
    """Makes the deliveries of jobs that have ended; batches of a production are a part of that, and
    told of with it. Returns how many ends were looked at, and how
    many deliveries were made: fewer ends than ``limit`` were all there are."""
    rows = connection.execute(_TAKE_ENDS, {"limit": limit}).all()
    ends = [
        (row, end)
        for row in rows
        if not row.a_part and (end := end_told(row.kind, row.type)) is not None
    ]
    if not ends:
        return len(rows), 0
    made = _made_of(connection, ends)
    if made:
        _insert(connection, made)
    return len(rows), len(made)


def _made_of(connection: Connection, ends: Sequence[tuple[Row[Any], str]]) -> list[_NewDelivery]:
    listeners: dict[str, list[Row[Any]]] = {}
    tenants = sorted({row.tenant_id for row, _ in ends})
    for listener in connection.execute(_LISTENERS, {"tenants": tenants}):
        listeners.setdefault(listener.tenant_id, []).append(listener)
    own = {
        row.job_id: row
        for row in connection.execute(_OF_JOBS, {"jobs": [row.job_id for row, _ in ends]})
    }
    made: list[_NewDelivery] = []
    for row, end in ends:
        kind = event_type(row.kind, end, cut=row.cut)
        common = {
            "tenant_id": row.tenant_id,
            "event_id": new_webhook_event_id(),
            "event_type": kind,
            "event_at": row.created_at,
            "about": row.job_id,
        }
        for listener in listeners.get(row.tenant_id, ()):
            if kind in listener.event_types:
                at = {"circuit": listener.id, "endpoint_id": listener.id}
                made.append(_NewDelivery(**common, **at, disabled=listener.disabled))
        hook = own.get(row.job_id)
        if hook is not None and (hook.events is None or kind in hook.events):
            circuit = f"{row.tenant_id} {origin_of(hook.url)}"
            made.append(_NewDelivery(**common, circuit=circuit, url=hook.url))
    return made


def tell(
    connection: Connection, *, tenant_id: str, kind: str, about: str, own: JobWebhook | None = None
) -> None:
    """Tells the tenant's endpoints, and ``own``, of something that is no job's end: once, with the
    transaction that makes it so. ``kind`` is its type, ``about`` the id to look up."""
    listeners = connection.execute(_LISTENERS, {"tenants": [tenant_id]}).all()
    common = {
        "tenant_id": tenant_id,
        "event_id": new_webhook_event_id(),
        "event_type": kind,
        "event_at": connection.execute(_NOW).scalar_one(),
        "about": about,
    }
    made = [
        _NewDelivery(**common, circuit=one.id, endpoint_id=one.id, disabled=one.disabled)
        for one in listeners
        if kind in one.event_types
    ]
    if own is not None and (own.events is None or kind in own.events):
        circuit = f"{tenant_id} {origin_of(own.url)}"
        made.append(_NewDelivery(**common, circuit=circuit, url=own.url))
    if made:
        _insert(connection, made)


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL that was found good when its job was accepted."""
    return "/".join(url.split("/", 3)[:3]).partition("?")[0].lower()


def _insert(connection: Connection, made: Sequence[_NewDelivery]) -> None:
    connection.execute(
        _DELIVER,
        {
            "ids": [new_delivery_id() for _ in made],
            "tenants": [item.tenant_id for item in made],
            "endpoints": [item.endpoint_id for item in made],
            "urls": [item.url for item in made],
            "circuits": [item.circuit for item in made],
            "events": [item.event_id for item in made],
            "types": [item.event_type for item in made],
            "times": [item.event_at for item in made],
            "abouts": [item.about for item in made],
            "disabled": [item.disabled for item in made],
        },
    )


def add_test_delivery(
    connection: Connection, *, tenant_id: str, endpoint_id: str, kind: str
) -> str | None:
    """One delivery of a sample, tried once, past the endpoint's circuit. Returns its id; None when
    the tenant has no such endpoint."""
    values = {
        "id": new_delivery_id(),
        "event": new_webhook_event_id(),
        "type": kind,
        "about": f"test_{endpoint_id}",
        "endpoint": endpoint_id,
        "tenant": tenant_id,
    }
    found: str | None = connection.execute(_TEST, values).scalar()
    return found


def replay_delivery(connection: Connection, *, tenant_id: str, delivery_id: str) -> bool:
    """Sends an ended delivery again, with the same ``webhook-id`` and a schedule from the start.
    False when it is pending, a test, of a disabled endpoint, or not there."""
    values = {"tenant": tenant_id, "endpoint": None, "delivery": delivery_id, "since": 0.0}
    return connection.execute(_REPLAY, values | {"status": None, "limit": 1}).rowcount > 0


def replay_since(
    connection: Connection, *, tenant_id: str, endpoint_id: str, since: float, status: str | None
) -> int:
    """As ``replay_delivery`` for the endpoint's deliveries that were made ``since`` (Unix seconds)
    and have ended, or ended with ``status``: up to ``REPLAY_AT_ONCE``. Returns how many."""
    values = {"tenant": tenant_id, "endpoint": endpoint_id, "delivery": None, "since": since}
    values |= {"status": status, "limit": REPLAY_AT_ONCE}
    return connection.execute(_REPLAY, values).rowcount


def cancel_deliveries(connection: Connection, endpoint_ids: Sequence[str], why: str) -> int:
    """Ends what still waits for endpoints that were disabled or deleted; it can be replayed."""
    return connection.execute(_CANCEL, {"endpoints": list(endpoint_ids), "why": why}).rowcount
