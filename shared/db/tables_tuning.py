"""Tables of fine-tuning: what a training can go on from, the numbers of its steps, and searches."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
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

sweeps = Table(
    "sweeps",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("trials", Integer, nullable=False, comment="how many there are to be"),
    Column("metric", Text, nullable=False),
    Column("minimize", Boolean, nullable=False),
    Column("pruning", Boolean, nullable=False),
)
"""A fine-tuning job whose training is a search: written when its data were found good."""

trials = Table(
    "trials",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "parent_id",
        ForeignKey("sweeps.job_id", ondelete="CASCADE"),
        nullable=False,
        comment="the fine-tuning job that searches",
    ),
    Column("number", Integer, nullable=False, comment="from 1, in the order of suggestion"),
    Column("params", JSON, nullable=False, comment="what was suggested, by name"),
    Column("value", Double, comment="of the sweep's metric, of the model that was delivered"),
    Column(
        "evaluations",
        JSON,
        nullable=False,
        server_default="[]",
        comment="the metric's values in their order, once it has ended",
    ),
    moment("pruned_at"),
    Column(
        "ended_at", DateTime(timezone=True), comment="when its end was counted; null: it is open"
    ),
    UniqueConstraint("parent_id", "number"),
    Index("ix_trials_open", "parent_id", postgresql_where=text("ended_at IS NULL")),
)
"""The trials of sweeps, each a fine-tuning job of its own."""
