"""Queries on monitors and their windows: for tenants who look, and for upkeep that judges."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, text


def _seconds(column: str) -> str:
    return f"CAST(extract(epoch FROM {column}) AS double precision) AS {column.partition('.')[2]}"


_MONITOR = f"""
SELECT m.id, m.name, m.model, m.label, m.share_limit, m.minimum, m.window_seconds, m.source,
       m.text_column, m.webhook, m.state, m.error_code, m.error_message,
       (SELECT b.job_id FROM monitor_batches b WHERE b.monitor_id = m.id) AS batch_id,
       (SELECT count(*) FROM monitor_texts t WHERE t.monitor_id = m.id) AS waiting,
       {_seconds("m.created_at")}, {_seconds("m.updated_at")}
  FROM monitors m WHERE m.tenant_id = :tenant
"""
_GET = text(f"{_MONITOR} AND m.id = :id")
_LIST = text(f"""
{_MONITOR} AND (CAST(:after AS text) IS NULL OR m.id < :after) ORDER BY m.id DESC LIMIT :limit
""")
_COUNT = text("SELECT count(*) FROM monitors WHERE tenant_id = :tenant")

_WINDOW = f"""
SELECT w.id, w.monitor_id, m.label, m.share_limit, m.minimum, w.texts, w.failed, w.labels,
       {_seconds("w.starts_at")}, {_seconds("w.ends_at")}, {_seconds("w.alerted_at")}
  FROM monitor_windows w JOIN monitors m ON m.id = w.monitor_id
 WHERE w.tenant_id = :tenant
"""
# An id is made with the first text of its window: ids are in the order of time.
_WINDOWS = text(f"""
{_WINDOW} AND w.monitor_id = :monitor AND (CAST(:after AS text) IS NULL OR w.id < :after)
 ORDER BY w.id DESC LIMIT :limit
""")
_ONE_WINDOW = text(f"{_WINDOW} AND w.id = :id")

_WAITING = text("""
SELECT t.id, t.body FROM monitor_texts t JOIN monitor_windows w ON w.id = t.window_id
 WHERE t.monitor_id = :monitor AND t.job_id IS NULL AND w.ends_at <= clock_timestamp()
 ORDER BY t.id LIMIT :limit
""")

_BATCH = text("""
SELECT b.job_id, j.state, j.ended_at IS NOT NULL AS ended, j.error_code, j.error_message,
       f.storage_key AS output_key
  FROM monitor_batches b JOIN jobs j ON j.id = b.job_id
  LEFT JOIN files f ON f.id = j.output_file_id AND f.deleted_at IS NULL
 WHERE b.monitor_id = :monitor
""")


class MonitorRow(NamedTuple):
    """A monitor; times in Unix seconds."""

    id: str
    name: str
    model: str
    label: str
    share_limit: float
    minimum: int
    window_seconds: int
    source: dict[str, Any] | None
    text_column: str | None
    webhook: dict[str, Any] | None
    state: str
    error_code: str | None
    error_message: str | None
    batch_id: str | None
    """The one that judges now."""
    waiting: int
    """Texts that are still to be judged, or to be counted."""
    created_at: float
    updated_at: float


class WindowRow(NamedTuple):
    """What was counted in one window of a monitor; times in Unix seconds."""

    id: str
    monitor_id: str
    label: str
    share_limit: float
    minimum: int
    texts: int
    failed: int
    labels: dict[str, int]
    starts_at: float
    ends_at: float
    alerted_at: float | None


class WaitingText(NamedTuple):
    """A text to be judged; ``body`` is JSON."""

    id: int
    body: str


class MonitorBatch(NamedTuple):
    """The batch that judges texts of a monitor."""

    job_id: str
    state: str
    ended: bool
    error_code: str | None
    error_message: str | None
    output_key: str | None


def get_monitor(connection: Connection, tenant_id: str, monitor_id: str) -> MonitorRow | None:
    row = connection.execute(_GET, {"tenant": tenant_id, "id": monitor_id}).one_or_none()
    return None if row is None else MonitorRow._make(row)


def list_monitors(
    connection: Connection, tenant_id: str, *, after: str | None, limit: int
) -> list[MonitorRow]:
    """Newest first."""
    values = {"tenant": tenant_id, "after": after, "limit": limit}
    return [MonitorRow._make(row) for row in connection.execute(_LIST, values)]


def count_monitors(connection: Connection, tenant_id: str) -> int:
    """How many the tenant has."""
    found: int = connection.execute(_COUNT, {"tenant": tenant_id}).scalar_one()
    return found


def list_windows(
    connection: Connection, tenant_id: str, monitor_id: str, *, after: str | None, limit: int
) -> list[WindowRow]:
    """Newest first; windows without a text have no row."""
    values = {"tenant": tenant_id, "monitor": monitor_id, "after": after, "limit": limit}
    return [WindowRow._make(row) for row in connection.execute(_WINDOWS, values)]


def get_window(connection: Connection, tenant_id: str, window_id: str) -> WindowRow | None:
    row = connection.execute(_ONE_WINDOW, {"tenant": tenant_id, "id": window_id}).one_or_none()
    return None if row is None else WindowRow._make(row)


def waiting_texts(connection: Connection, monitor_id: str, *, limit: int) -> list[WaitingText]:
    """For upkeep: the oldest of windows that are over."""
    rows = connection.execute(_WAITING, {"monitor": monitor_id, "limit": limit})
    return [WaitingText._make(row) for row in rows]


def batch_of(connection: Connection, monitor_id: str) -> MonitorBatch | None:
    """For upkeep: the one that is not counted yet."""
    row = connection.execute(_BATCH, {"monitor": monitor_id}).one_or_none()
    return None if row is None else MonitorBatch._make(row)
