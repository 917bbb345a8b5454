"""For whom a transaction of the API is: what the second wall between tenants goes by.

The first wall is the ``tenant_id`` in every query. The second one is Postgres' row-level security:
the API's connections act as ``API_ROLE``, to which every table shows the rows of the tenants that
the setting ``SETTING`` lists, and none without it. ``shared.db.session`` puts the setting at the
beginning of every transaction, in the same round trip as its first statement and only for as long
as the transaction lasts: a connection that is shared, by a pool or a pooler, carries nothing over.

For whom it is was said before by whoever knows: routes (in one place for all, ``api.routing``), and
the threads that work for several requests at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

API_ROLE = "pressrun_api"
"""Of requests of tenants: sees the rows of those that the setting lists."""
ADMIN_ROLE = "pressrun_admin"
"""Of requests with the admin key: sees all rows of the few tables that administration is about."""
WORKER_ROLE = "pressrun_worker"
"""Of workers, upkeep and the command line: sees all rows. Whoever migrates belongs to it."""
SETTING = "pressrun.tenants"
"""The ids of tenants, with commas between them."""

_FOR_TENANTS = f"SELECT set_config('{SETTING}', %s, true)"
_FOR_ADMINISTRATION = f"SELECT set_config('role', %s, true), set_config('{SETTING}', '', true)"


class Acting(NamedTuple):
    """For whom: the statement that says so to Postgres."""

    statement: str
    parameters: tuple[str, ...]


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


def acting_now() -> Acting | None:
    """For whom a transaction would be that begins now; None: for nobody."""
    return _acting.get()


@contextmanager
def acting_as(who: Acting | None) -> Iterator[None]:
    """Transactions that begin within the block are for those whom ``acting_now`` gave elsewhere."""
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)


@contextmanager
def acting_for(*tenant_ids: str) -> Iterator[None]:
    """Transactions that begin within the block are for these tenants, and for none of those of a
    block around it."""
    with acting_as(Acting(_FOR_TENANTS, (",".join(tenant_ids),))):
        yield


@contextmanager
def administrating() -> Iterator[None]:
    """Transactions that begin within the block are the administrator's."""
    with acting_as(Acting(_FOR_ADMINISTRATION, (ADMIN_ROLE,))):
        yield
