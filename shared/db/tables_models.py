"""Tables of names: aliases, and where they have been."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)

from shared.db.columns import count, metadata, moment, now

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("model", ForeignKey("models.id"), comment="who holds it; null: nobody yet"),
    count("version"),
    Column("standing", Integer, comment="the version whose model holds it, after rollbacks"),
    Column("gate_job_id", Text, comment="the evaluation of the newest gate"),
    now(),
    moment("moved_at"),
    UniqueConstraint("tenant_id", "name"),
    Index("ix_model_aliases_tenant_id_model", "tenant_id", "model"),
)

model_alias_moves = Table(
    "model_alias_moves",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("alias_id", ForeignKey("model_aliases.id", ondelete="CASCADE"), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("version", Integer, comment="counts moves; null: a gate that stayed shut"),
    Column("from_model", Text),
    Column("to_model", Text, nullable=False),
    Column("cause", Text, nullable=False, comment="hand, gate or rollback"),
    Column("outcome", Text, nullable=False, comment="moved, kept or superseded"),
    Column("back_to", Integer, comment="the version before it; of a rollback: the one returned to"),
    Column("job_id", Text, comment="the evaluation of a gate"),
    Column("evaluation", JSON, comment="of a gate: the metric, both values, what was asked"),
    now(),
    UniqueConstraint("alias_id", "version"),
    Index("ix_model_alias_moves_alias_id_id", "alias_id", "id"),
)
"""The history of aliases, one row for each move and each gate."""
