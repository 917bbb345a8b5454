"""Tables of fine-tuning: what a training can go on from, and the numbers of its steps."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from shared.db.columns import metadata, moment, now, total

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("shard_id", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False, comment="the attempt that made it"),
    Column("step", BigInteger, nullable=False),
    Column("prefix", Text, nullable=False, comment="of the keys of all its objects"),
    Column("manifest_key", Text, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("files", JSON, nullable=False, comment="path, key, bytes and sha256 of each"),
    total("bytes"),
    Column("metrics", JSON, nullable=False, server_default="{}"),
    Column("best", Boolean, nullable=False, server_default=text("false")),
    Column("model_id", Text, comment="the name under which it can be asked"),
    now(),
    moment("dropped_at"),
    UniqueConstraint("job_id", "epoch", "step"),
    Index("ix_checkpoints_model_id", "model_id", postgresql_where=text("dropped_at IS NULL")),
)

training_metrics = Table(
    "training_metrics",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False, comment="the shard's epoch when it was told"),
    Column("epoch", Double, nullable=False, comment="passes over the data"),
    Column("values", JSON, nullable=False, comment="numbers by name; null: not a finite one"),
    now(),
    PrimaryKeyConstraint("job_id", "step"),
)
