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

from sqlalchemy import Text, TextClause, bindparam

API_ROLE = "pressrun_api"
"""Of requests of tenants: sees the rows of those that the setting lists."""
ADMIN_ROLE = "pressrun_admin"
"""Of requests with the admin key: sees all rows of the few tables that administration is about."""
WORKER_ROLE = "pressrun_worker"
"""Of workers, upkeep and the command line: sees all rows. Whoever migrates belongs to it."""
SETTING = "pressrun.tenants"
"""The ids of tenants, with commas between them."""

SAID = f"(SELECT set_config('{SETTING}', :acting_for, true)) IS NOT NULL"
"""In the outermost WHERE of a statement: looked at before any table is, since it depends on none
(``tests/architecture/test_row_level_security.py`` asks Postgres for the plans)."""
SAYS_ITSELF = "says_for_whom_itself"
"""The execution option of such a statement."""

_SET = f"set_config('{SETTING}', %s, true)"
_FOR_TENANTS = f"SELECT {_SET}"
_FOR_ADMINISTRATION = f"SELECT set_config('role', '{ADMIN_ROLE}', true), {_SET}"


class Acting(NamedTuple):
    """For whom."""

    tenants: str
    """As in the setting."""
    administrating: bool = False

    @property
    def statement(self) -> str:
        """What says so to Postgres, with ``tenants`` for its one parameter."""
        return _FOR_ADMINISTRATION if self.administrating else _FOR_TENANTS


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
    with acting_as(Acting(",".join(tenant_ids))):
        yield


@contextmanager
def administrating() -> Iterator[None]:
    """Transactions that begin within the block are the administrator's."""
    with acting_as(Acting("", administrating=True)):
        yield


def says_for_whom(statement: TextClause) -> TextClause:
    """``statement``, which has ``SAID``, for the few that are asked so often that a second one
    before them shows (``get_job_vs_bare_route``)."""
    whom = bindparam("acting_for", callable_=_tenants_now, type_=Text)
    return statement.bindparams(whom).execution_options(**{SAYS_ITSELF: True})


def _tenants_now() -> str:
    who = _acting.get()
    return "" if who is None else who.tenants
