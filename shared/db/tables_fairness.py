"""What each tenant has been served, which says whose turn it is."""

from __future__ import annotations

from sqlalchemy import Column, Double, PrimaryKeyConstraint, Table, Text, text

from shared.db.columns import metadata

shares = Table(
    "shares",
    metadata,
    Column("pool", Text, nullable=False),
    Column("tenant_id", Text, nullable=False, comment="empty: the pool's own time"),
    Column("virtual_time", Double, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("pool", "tenant_id"),
    comment="expected seconds that a tenant was given in a pool, divided by its weight",
)
"""Written by claims alone, and only while tenants compete. The row of the pool without a name is
about all pools: it counts the claims of tenants that may not have too much running."""
