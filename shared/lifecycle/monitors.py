"""What tenants do with monitors: make, feed, pause, resume, delete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.db.monitors import count_monitors
from shared.errors import Conflict, QuotaExceeded
from shared.ids import new_window_id
from shared.lifecycle.schedules_seen import forget_rows
from shared.lifecycle.webhooks import JobWebhook
from shared.specs.monitors import MOST_MONITORS, MOST_WAITING

_HOLD_TENANT = text("SELECT id FROM tenants WHERE id = :tenant FOR NO KEY UPDATE")

_CREATE = text("""
INSERT INTO monitors (id, tenant_id, name, model, label, share_limit, minimum, window_seconds,
                      source, text_column, webhook, next_look_at, next_read_at)
VALUES (:id, :tenant, :name, :model, :label, :limit, :minimum, :seconds, CAST(:source AS json),
        :column, CAST(:webhook AS json), clock_timestamp(),
        CASE WHEN CAST(:source AS text) IS NOT NULL THEN clock_timestamp() END)
""")

_HOLD = text("""
SELECT id, state, window_seconds FROM monitors WHERE id = :id AND tenant_id = :tenant
   FOR NO KEY UPDATE
""")

_SET_STATE = text("""
UPDATE monitors
   SET state = :state, updated_at = clock_timestamp(), error_code = NULL, error_message = NULL,
       readers_out = 0, next_look_at = clock_timestamp()
 WHERE id = :id AND state <> :state
""")

_DELETE = text("DELETE FROM monitors WHERE id = :id AND tenant_id = :tenant")

_WAITING = text("""
SELECT count(*) FROM (SELECT 1 FROM monitor_texts WHERE monitor_id = :id LIMIT :most) counted
""")

# Windows begin at whole multiples of their length since 1970: they are the same for everybody.
_WINDOW = text("""
WITH place AS (
    SELECT to_timestamp(floor(extract(epoch FROM clock_timestamp()) / :seconds) * :seconds) AS at)
INSERT INTO monitor_windows (id, monitor_id, tenant_id, starts_at, ends_at, texts)
SELECT :window, :id, :tenant, at, at + make_interval(secs => :seconds), :texts FROM place
    ON CONFLICT (monitor_id, starts_at) DO UPDATE SET texts = monitor_windows.texts + :texts
RETURNING id
""")

_ADD = text("""
INSERT INTO monitor_texts (monitor_id, tenant_id, window_id, body)
SELECT :id, :tenant, :window, d.body
  FROM unnest(CAST(:bodies AS text[])) WITH ORDINALITY AS d (body, place) ORDER BY d.place
""")

_LOOK_BY = text("""
UPDATE monitors m SET next_look_at = least(m.next_look_at, w.ends_at)
  FROM monitor_windows w WHERE m.id = :id AND w.id = :window
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMonitor:
    """A monitor to be made, found good."""

    monitor_id: str
    tenant_id: str
    name: str
    model: str
    """As it was named; an alias is looked up for each batch."""
    label: str
    limit: float
    """Of the label's share, 0 to 1."""
    minimum: int
    window_seconds: int
    source: dict[str, Any] | None = None
    text_column: str | None = None
    webhook: JobWebhook | None = None


def create_monitor(connection: Connection, new: NewMonitor) -> None:
    """Raises Conflict when the tenant has as many as it may."""
    connection.execute(_HOLD_TENANT, {"tenant": new.tenant_id})
    if count_monitors(connection, new.tenant_id) >= MOST_MONITORS:
        raise Conflict(f"there are {MOST_MONITORS} monitors already: delete one first")
    webhook = new.webhook and {"url": new.webhook.url, "events": new.webhook.events}
    connection.execute(
        _CREATE,
        {
            "id": new.monitor_id,
            "tenant": new.tenant_id,
            "name": new.name,
            "model": new.model,
            "label": new.label,
            "limit": new.limit,
            "minimum": new.minimum,
            "seconds": new.window_seconds,
            "source": None if new.source is None else json.dumps(new.source),
            "column": new.text_column,
            "webhook": None if webhook is None else json.dumps(webhook),
        },
    )


def post_texts(
    connection: Connection, *, tenant_id: str, monitor_id: str, texts: Sequence[str]
) -> str | None:
    """Adds texts to the window that is open now; returns its id, None when there is no such
    monitor. Raises Conflict for one that is paused, QuotaExceeded when too many wait."""
    found = connection.execute(_HOLD, {"id": monitor_id, "tenant": tenant_id}).one_or_none()
    if found is None:
        return None
    if found.state != "active":
        raise Conflict("the monitor is paused")
    return gather(connection, tenant_id, monitor_id, found.window_seconds, texts)


def gather(
    connection: Connection, tenant_id: str, monitor_id: str, seconds: int, texts: Sequence[str]
) -> str:
    """``post_texts`` for whoever holds the monitor. Raises QuotaExceeded when too many wait."""
    most = MOST_WAITING + 1
    waiting: int = connection.execute(_WAITING, {"id": monitor_id, "most": most}).scalar_one()
    if waiting + len(texts) > MOST_WAITING:
        raise QuotaExceeded(
            f"{waiting} texts wait to be judged, and {MOST_WAITING} may: try again later",
            param="texts",
            retry_after_seconds=60.0,
        )
    common = {"id": monitor_id, "tenant": tenant_id}
    size = {"seconds": seconds, "texts": len(texts), "window": new_window_id()}
    window_id: str = connection.execute(_WINDOW, common | size).scalar_one()
    bodies = [json.dumps(each) for each in texts]
    connection.execute(_ADD, common | {"window": window_id, "bodies": bodies})
    connection.execute(_LOOK_BY, {"id": monitor_id, "window": window_id})
    return window_id


def set_monitor_state(
    connection: Connection, *, tenant_id: str, monitor_id: str, active: bool
) -> bool:
    """Pauses or resumes; what is being judged is counted all the same. False: there is none."""
    found = connection.execute(_HOLD, {"id": monitor_id, "tenant": tenant_id}).one_or_none()
    if found is not None:
        values = {"id": monitor_id, "state": "active" if active else "paused"}
        connection.execute(_SET_STATE, values)
    return found is not None


def delete_monitor(connection: Connection, *, tenant_id: str, monitor_id: str) -> bool:
    """It, its counts, and the texts that wait; a batch of it goes on. False: there is none."""
    values = {"id": monitor_id, "tenant": tenant_id}
    gone = connection.execute(_DELETE, values).rowcount > 0
    # Whoever was taking rows of its source held the monitor: now they are there to be forgotten.
    forget_rows(connection, owner_id=monitor_id, tenant_id=tenant_id)
    return gone
