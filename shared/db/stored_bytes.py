"""Queries on how much a tenant keeps in the store."""

from __future__ import annotations

from sqlalchemy import Connection, text

# What a tenant has deleted, or what has expired, counts no more, though its object may be there for
# a while. Parts count until upkeep has removed them, or the file is there that they became.
_STORED = text("""
SELECT CAST(
    (SELECT coalesce(sum(bytes), 0) FROM files
      WHERE tenant_id = :tenant AND deleted_at IS NULL
        AND (expires_at IS NULL OR expires_at > clock_timestamp()))
  + (SELECT coalesce(sum(p.bytes), 0) FROM uploads u JOIN upload_parts p ON p.upload_id = u.id
      WHERE u.tenant_id = :tenant AND u.cleaned_at IS NULL AND u.file_id IS NULL)
  + (SELECT coalesce(sum(bytes), 0) FROM artifacts WHERE tenant_id = :tenant)
  + (SELECT coalesce(sum(bytes), 0) FROM models
      WHERE tenant_id = :tenant AND deleted_at IS NULL)
  AS bigint)
""")


def stored_bytes(connection: Connection, tenant_id: str) -> int:
    """Of files (uploaded, and results of batches), parts of uploads, artifacts and models."""
    found: int = connection.execute(_STORED, {"tenant": tenant_id}).scalar_one()
    return found
