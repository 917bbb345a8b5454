"""Queries on ``limit_notices``: which part of a limit a tenant has used up, and when."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text


class NoticeRow(NamedTuple):
    """That ``percent`` of a limit had been consumed; ``created_at`` in Unix seconds."""

    id: str
    limit_name: str
    """One of ``shared.quotas.limits.TOLD``."""
    period_start: date
    """The day, or the first of the month, in UTC."""
    percent: int
    allowed: Decimal
    consumed: Decimal
    """In the unit of the limit, as ``allowed`` is; at the moment at which somebody looked."""
    created_at: float


_SELECT = """
SELECT id, limit_name, period_start, percent, allowed, consumed,
       CAST(extract(epoch FROM created_at) AS double precision)
  FROM limit_notices WHERE tenant_id = :tenant"""
_GET = text(f"{_SELECT} AND id = :id")
_LIST = text(f"""{_SELECT}
   AND (CAST(:after AS text) IS NULL OR id < :after) ORDER BY id DESC LIMIT :limit
""")


def get_notice(connection: Connection, tenant_id: str, notice_id: str) -> NoticeRow | None:
    row = connection.execute(_GET, {"tenant": tenant_id, "id": notice_id}).one_or_none()
    return None if row is None else NoticeRow._make(row)


def list_notices(
    connection: Connection, tenant_id: str, *, after: str | None, limit: int
) -> list[NoticeRow]:
    """Newest first, those before the id ``after``."""
    rows = connection.execute(_LIST, {"tenant": tenant_id, "after": after, "limit": limit})
    return [NoticeRow._make(row) for row in rows]
