"""Tables of productions: how far each is, and the batches that it had run."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    UniqueConstraint,
    text,
)

from shared.db.columns import metadata

productions = Table(
    "productions",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("rows", Integer, nullable=False, server_default=text("0"), comment="of the data"),
    Column(
        "lines",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="that its output is to have",
    ),
    Column("round", Integer, nullable=False, server_default=text("0")),
    Column("phase", Integer, nullable=False, server_default=text("0")),
    Column(
        "phases",
        Integer,
        nullable=False,
        server_default=text("1"),
        comment="of a round; progress is told by them",
    ),
    Column(
        "found",
        JSON,
        nullable=False,
        server_default="{}",
        comment="what the passes over its data left behind: files, counts",
    ),
)
"""Jobs that turn a template and a table into checked copy."""

production_batches = Table(
    "production_batches",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column(
        "parent_id",
        ForeignKey("productions.job_id", ondelete="CASCADE"),
        nullable=False,
        comment="the production that it is a part of",
    ),
    Column("round", Integer, nullable=False, comment="0 at first, then the retries"),
    Column("phase", Integer, nullable=False, comment="the place in the template's plan"),
    Column("rows", Integer, nullable=False),
    Column(
        "ended_at", DateTime(timezone=True), comment="when its end was counted; null: it is open"
    ),
    UniqueConstraint("parent_id", "round", "phase"),
    Index("ix_production_batches_open", "parent_id", postgresql_where=text("ended_at IS NULL")),
)
"""The batches of productions, each a job of its own."""
