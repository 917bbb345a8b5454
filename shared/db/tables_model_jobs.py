"""Tables of jobs about models: which ones they read."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, PrimaryKeyConstraint, Table, Text

from shared.db.columns import metadata

job_models = Table(
    "job_models",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column(
        "model_id",
        Text,
        nullable=False,
        comment="stays for as long as the job is open; it may be a checkpoint's",
    ),
    PrimaryKeyConstraint("job_id", "model_id"),
    Index("ix_job_models_model_id", "model_id"),
)
