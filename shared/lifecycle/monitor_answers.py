"""The answers of a monitor's batches become counts of windows, and alerts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.lifecycle.monitor_work import MonitorClaim
from shared.lifecycle.webhooks import tell
from shared.specs.monitors import TEXT_DAYS, WINDOW_DAYS, passes_limit

MOST_AT_ONCE = 5_000

_CLOSE_BATCH = text("DELETE FROM monitor_batches WHERE job_id = :job RETURNING job_id")

_COUNT = text("""
SELECT t.window_id, d.label, count(*) AS n
  FROM monitor_texts t
  LEFT JOIN unnest(CAST(:ids AS bigint[]), CAST(:labels AS text[])) AS d (id, label) ON d.id = t.id
 WHERE t.monitor_id = :monitor AND t.job_id = :job
 GROUP BY t.window_id, d.label
""")

_DROP = text("DELETE FROM monitor_texts WHERE monitor_id = :monitor AND job_id = :job")

_WINDOWS = text("""
SELECT w.id, w.labels, w.alerted_at IS NOT NULL AS alerted, w.ends_at <= clock_timestamp() AND
       NOT EXISTS (SELECT 1 FROM monitor_texts t WHERE t.window_id = w.id) AS complete
  FROM monitor_windows w WHERE w.id = ANY(:windows) ORDER BY w.id FOR UPDATE OF w
""")

_KEEP = text("""
UPDATE monitor_windows SET labels = CAST(:labels AS jsonb), failed = failed + :failed,
       alerted_at = CASE WHEN :alert THEN clock_timestamp() ELSE alerted_at END
 WHERE id = :window
""")

_GIVE_UP = text("""
WITH old AS (
    SELECT id FROM monitor_texts
     WHERE job_id IS NULL AND created_at < clock_timestamp() - make_interval(days => :days)
     ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM monitor_texts t USING old WHERE t.id = old.id RETURNING t.window_id
)
UPDATE monitor_windows w SET failed = w.failed + g.n
  FROM (SELECT window_id, count(*) AS n FROM gone GROUP BY window_id) g WHERE w.id = g.window_id
""")

_FORGET_WINDOWS = text("""
DELETE FROM monitor_windows WHERE id IN (
    SELECT id FROM monitor_windows
     WHERE ends_at < clock_timestamp() - make_interval(days => :days)
     ORDER BY ends_at LIMIT :limit FOR UPDATE SKIP LOCKED)
""")


def count_answers(
    connection: Connection, claim: MonitorClaim, job_id: str, labels: Mapping[int, str]
) -> int:
    """Counts what the batch said, by text; a text without a label has failed. Texts that were
    counted are gone. Tells of each window that is complete and over the limit, once. Returns how
    many were told of. The caller holds the monitor."""
    if connection.execute(_CLOSE_BATCH, {"job": job_id}).scalar() is None:
        return 0
    common = {"monitor": claim.monitor_id, "job": job_id}
    values = common | {"ids": list(labels), "labels": list(labels.values())}
    counted = connection.execute(_COUNT, values).all()
    connection.execute(_DROP, common)
    found: dict[str, dict[str | None, int]] = {}
    for row in counted:
        found.setdefault(row.window_id, {})[row.label] = row.n
    windows = connection.execute(_WINDOWS, {"windows": sorted(found)}).all()
    return sum(_keep(connection, claim, window, found[window.id]) for window in windows)


def _keep(
    connection: Connection, claim: MonitorClaim, window: Row[Any], found: dict[str | None, int]
) -> bool:
    failed = found.pop(None, 0)
    labels = dict(window.labels)
    for label, count in found.items():
        labels[str(label)] = labels.get(str(label), 0) + count
    over = passes_limit(labels, claim.label, limit=claim.limit, minimum=claim.minimum)
    alert = over and window.complete and not window.alerted
    connection.execute(
        _KEEP,
        {
            "window": window.id,
            "labels": json.dumps(labels, ensure_ascii=False),
            "failed": failed,
            "alert": alert,
        },
    )
    if alert:
        tell(
            connection,
            tenant_id=claim.tenant_id,
            kind="monitor.alert",
            about=window.id,
            own=claim.webhook,
        )
    return alert


def clean_monitors(connection: Connection) -> int:
    """Gives texts up that nobody judged for a week, and forgets old windows; some of them."""
    texts = {"days": TEXT_DAYS, "limit": MOST_AT_ONCE}
    windows = {"days": WINDOW_DAYS, "limit": MOST_AT_ONCE}
    gone = connection.execute(_GIVE_UP, texts).rowcount
    return gone + connection.execute(_FORGET_WINDOWS, windows).rowcount
