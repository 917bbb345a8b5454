"""Threads of upkeep: one tenant's chores, however long, leave some for others."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing

import pytest

from shared.db.session import make_engine
from shared.pools import UPKEEP
from tests.integration.test_congestion import HungryEngines, OpenSession, running
from tests.integration.upkeep_case import Hall, hall_fixture, row
from tests.plant import wait_until
from worker.supervisor import Supervisor
from worker.upkeep.chore import Chore
from worker.upkeep.chores import OF_A_TENANT, THREADS
from worker.wakeup import Mailbox

__all__ = ["hall_fixture"]

PATIENCE_SECONDS = 120.0


class Endless:
    """In place of what a chore does: it lasts until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = threading.Event()

    def __call__(self, chore: Chore) -> None:
        self.begun.append(chore.claim.tenant_id)
        assert self.go.wait(PATIENCE_SECONDS)

    def by_tenant(self) -> list[int]:
        return sorted(Counter(self.begun).values())


def test_a_tenant_with_endless_chores_leaves_threads_to_others(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Endless()
    monkeypatch.setattr(hall.chores, "_do", endless)
    for _ in range(THREADS + 2):
        hall.batch(row(1))
    database = make_engine(hall.settings.database_url, process="test")
    session, mailbox, engines = OpenSession(), Mailbox(), HungryEngines()
    session.id = hall.me
    supervisor = Supervisor(
        database=database,
        autocommit=database.execution_options(isolation_level="AUTOCOMMIT"),
        session=session,  # type: ignore[arg-type]
        mailbox=mailbox,
        generation=engines,  # type: ignore[arg-type]
        admission=engines,  # type: ignore[arg-type]
        desks={UPKEEP: hall.chores},
        pools=[UPKEEP],
        window=32,
        poll_seconds=0.02,
        drain_seconds=60.0,
        congested=lambda: False,
    )
    with closing(mailbox), running(supervisor):
        try:
            wait_until(lambda: len(endless.begun) == OF_A_TENANT, PATIENCE_SECONDS)
            assert hall.chores.room() == THREADS - OF_A_TENANT
            hall.key = hall.new_tenant()
            hall.batch(row(1))
            wait_until(lambda: len(endless.begun) > OF_A_TENANT, PATIENCE_SECONDS)
            assert endless.by_tenant() == [1, OF_A_TENANT]
        finally:
            endless.go.set()
    assert max(endless.by_tenant()) >= OF_A_TENANT
    database.dispose()


def test_who_has_as_many_as_one_may_is_set_apart(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Endless()
    monkeypatch.setattr(hall.chores, "_do", endless)
    for _ in range(OF_A_TENANT):
        hall.batch(row(1))
    assert hall.chores.apart() == frozenset()
    claims = hall.claim(UPKEEP, OF_A_TENANT)
    try:
        for claim in claims:
            hall.chores.begin(claim, hall.me)
        assert hall.chores.apart() == {claims[0].tenant_id}
    finally:
        endless.go.set()
    wait_until(lambda: hall.chores.idle, PATIENCE_SECONDS)
    assert hall.chores.apart() == frozenset()
