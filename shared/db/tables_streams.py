"""Text on its way to whoever reads it as it is generated."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Integer, PrimaryKeyConstraint, Table, Text

from shared.db.columns import metadata

# Without foreign keys: their locks would write to the log, and wait for the disk, ten times a
# second for rows that nobody misses.
deltas = Table(
    "deltas",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("epoch", Integer, nullable=False, comment="the attempt that says it"),
    Column("seq", Integer, nullable=False, comment="from 0 in each attempt"),
    Column(
        "pieces",
        JSON,
        nullable=False,
        comment="[choice, characters of its text before this, what follows], …",
    ),
    PrimaryKeyConstraint("job_id", "epoch", "seq"),
    prefixes=["UNLOGGED"],
)
