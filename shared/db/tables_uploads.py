"""Tables of files that come in parts. What an upload is follows from its moments and its job."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    text,
)

from shared.db.columns import metadata, moment, now

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False, comment="of the whole file"),
    Column("file_seconds", Integer, comment="life of the file; null: for ever"),
    now(),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column(
        "join_id",
        ForeignKey("jobs.id", ondelete="SET NULL"),
        comment="the last job that was to join the parts",
    ),
    Column("join_sha256", Text, comment="of what the job was asked to join"),
    Column("file_id", ForeignKey("files.id"), comment="once completed"),
    moment("cancelled_at"),
    moment("ended_at"),
    moment("cleaned_at"),
    Index("ix_uploads_uncleaned", "expires_at", postgresql_where=text("cleaned_at IS NULL")),
    Index("ix_uploads_join_id", "join_id", postgresql_where=text("join_id IS NOT NULL")),
    Index("ix_uploads_file_id", "file_id", postgresql_where=text("file_id IS NOT NULL")),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("upload_id", ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("storage_key", Text, nullable=False),
    now(),
    Index("ix_upload_parts_upload_id", "upload_id"),
)
