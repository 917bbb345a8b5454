"""How much of an upload is read in: no more than its tenant has room for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from api.services import Services
from shared.db.stored_bytes import stored_bytes
from shared.errors import PayloadTooLarge, QuotaExceeded


@contextmanager
def within_room(services: Services, tenant_id: str, most_bytes: int) -> Iterator[int]:
    """The most bytes, up to ``most_bytes``, that the body of this request may have. Within the
    block, a body that turns out larger than the tenant has room for is a QuotaExceeded; whether it
    fits is looked at again in the transaction that keeps it.

    Raises QuotaExceeded at once when there is no room for anything.
    """
    limit = services.gate.terms(tenant_id).limits.stored_bytes
    if limit is None:
        yield most_bytes
        return
    with services.autocommit.connect() as connection:
        room = limit - stored_bytes(connection, tenant_id)
    if room <= 0:
        _refuse(limit)
    try:
        yield min(room, most_bytes)
    except PayloadTooLarge:
        if room >= most_bytes:
            raise
        _refuse(limit)


def require_room(services: Services, tenant_id: str, coming: int) -> None:
    """For what is announced and comes later. Raises QuotaExceeded when it can't fit."""
    with within_room(services, tenant_id, coming) as most:
        if most < coming:
            raise PayloadTooLarge("more than there is room for")


def _refuse(limit: int) -> NoReturn:
    raise QuotaExceeded(
        f"the tenant's quota 'stored_bytes' is {limit}: delete files first", param="stored_bytes"
    )
