"""What all tables are made of: one ``metadata``, and columns that many of them have."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    MetaData,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def now(name: str = "created_at") -> Column[object]:
    """When the row was made, by the database's clock."""
    return Column(
        name, DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")
    )


def moment(name: str) -> Column[object]:
    """When something happened; null until then."""
    return Column(name, DateTime(timezone=True))


def count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text("0"))


def total(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))
