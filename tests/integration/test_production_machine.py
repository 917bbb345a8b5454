"""Any order of claims, deaths, late commits, answers, cancels and ends of batches: a production has
one batch at a time, waits only for what will come, and ends once.

``PRESSRUN_TEST_PROTOCOL=soak`` runs many more and longer stories.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from shared import lifecycle
from shared.ids import new_batch_id, new_file_id, new_production_id
from shared.lifecycle import NewProduction, working
from shared.lifecycle.working import (
    Claim,
    NewFile,
    NewProductionBatch,
    ProductionEnd,
    ProductionSize,
)
from shared.storage.base import StoredObject
from tests.integration.protocol import TENANT, WINDOW, Plant
from tests.integration.stories import tell_stories

PHASES = 4
OPEN = {"queued", "running"}
PICK = st.integers(0, 1_000)
STORED = StoredObject("t/x", "e" * 64, 5)


class ProductionStory(RuleBasedStateMachine):
    """One production of ``PHASES`` batches, upkeep that dies and comes back as a zombie."""

    plant: Plant

    @initialize()
    def begin(self) -> None:
        self.plant.sql(
            "TRUNCATE tenants, sessions, jobs, shards, events, usage, files, models CASCADE"
        )
        self.plant.tenant(TENANT)
        self.sessions = 0
        self.attempts: list[tuple[str, Claim, NewProductionBatch | None]] = []
        self.job_id = new_production_id()
        self.seen_end = ""
        file_id = new_file_id()
        self.plant.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            f" VALUES ('{file_id}', '{TENANT}', 'data.csv', 'user_data', 10, 'sha', 't/f')"
        )
        self.plant.sql(
            "INSERT INTO models (id, pool, engine, source, endpoints)"
            " VALUES ('m', 'text', 'fake', '', '{}')"
        )
        new = NewProduction(
            job_id=self.job_id, tenant_id=TENANT, spec="{}", models=["m"], data_file_id=file_id
        )
        with self.plant.engine.begin() as connection:
            lifecycle.submit_production(connection, new, window=WINDOW)
        session = self._session()
        claim = self.plant.claim_one(session, pools=["upkeep"])
        size = ProductionSize(rows=3, lines=3, phases=1)
        with self.plant.engine.begin() as connection:
            assert working.open_production(connection, session, claim.held, size, {})

    def _session(self) -> str:
        self.sessions += 1
        return self.plant.session(f"s{self.sessions}", pools=["upkeep", "text"])

    @property
    def job(self) -> Any:
        return self.plant.job(self.job_id)

    @property
    def shard(self) -> Any:
        (found,) = [s for s in self.plant.shards(self.job_id) if s.stage == "produce"]
        return found

    def batches(self) -> list[Any]:
        return list(
            self.plant.sql(
                "SELECT b.*, j.state FROM production_batches b JOIN jobs j ON j.id = b.job_id"
                " ORDER BY b.round"
            )
        )

    # --- upkeep ---------------------------------------------------------------------------------

    def _claim(self) -> None:
        session = self._session()
        self.plant.dispatch("upkeep")
        claims = self.plant.claim(session, pools=["upkeep"])
        for claim in claims:
            if claim.stage == "produce":
                self.attempts.append((session, claim, self._next(claim)))
            else:
                self._end_of_batch(session, claim)

    def _next(self, claim: Claim) -> NewProductionBatch | None:
        """What its pass comes to, by what it finds now."""
        done = len(self.batches())
        if claim.stop_reason is not None or done == PHASES:
            return None
        return NewProductionBatch(
            job_id=new_batch_id(),
            file_id=new_file_id(),
            endpoint="/v1/chat/completions",
            round=done,
            phase=0,
            rows=3,
            stored=STORED,
        )

    def _end_of_batch(self, session: str, claim: Claim) -> None:
        if claim.stage == "validate":
            self.plant.finish_validation(session, claim.held, slices=1)
        else:
            self.plant.finish_assembly(session, claim.held)

    @rule(commits=st.booleans())
    def work(self, commits: bool) -> None:
        """Claims whatever upkeep has to do; commits the production's part of it, or waits."""
        before = len(self.attempts)
        self._claim()
        if commits and len(self.attempts) > before:
            self.commit(before)

    @precondition(lambda self: self.attempts)
    @rule(pick=PICK)
    def commit(self, pick: int) -> None:
        """Any pass there ever was: by its holder, by a zombie, again."""
        session, claim, new = self.attempts[pick % len(self.attempts)]
        with self.plant.engine.begin() as connection:
            if new is None:
                working.finish_production(connection, session, claim.held, self._end(claim))
            else:
                working.continue_production(
                    connection, session, claim.held, new, found={}, progress=0.5, kept=1
                )

    def _end(self, claim: Claim) -> ProductionEnd:
        stopped = claim.stop_reason is not None
        return ProductionEnd(
            output=NewFile(new_file_id(), "out.csv", STORED),
            summary={"lines": 3},
            completed=3,
            failed=0,
            keep_seconds=None,
            cut_short=("batch_cancelled", "it was asked to stop") if stopped else None,
        )

    @precondition(lambda self: self.attempts)
    @rule(pick=PICK)
    def die(self, pick: int) -> None:
        self.plant.lose(self.attempts[pick % len(self.attempts)][0])

    @rule()
    def answer(self) -> None:
        """Slices of the batch are answered."""
        session = self._session()
        self.plant.dispatch("text")
        for claim in self.plant.claim(session, pools=["text"]):
            self.plant.finish_slice(session, claim)

    @rule()
    def gather(self) -> None:
        with self.plant.engine.begin() as connection:
            working.collect_production_batches(connection)
        with self.plant.engine.begin() as connection:
            working.stop_production_batches(connection)
        self.plant.sweep()

    # --- tenants --------------------------------------------------------------------------------

    @rule()
    def cancel(self) -> None:
        self.plant.stop(self.job_id)

    @precondition(lambda self: self.batches())
    @rule()
    def cancel_its_batch(self) -> None:
        self.plant.stop(self.batches()[-1].job_id)

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def it_has_one_batch_at_a_time(self) -> None:
        batches = self.batches()
        assert [one.round for one in batches] == list(range(len(batches)))
        assert sum(one.ended_at is None for one in batches) <= 1
        assert len(batches) <= PHASES

    @invariant()
    def it_waits_for_what_will_come(self) -> None:
        shard = self.shard
        if shard.state == "queued" and shard.blocked_n:
            assert any(one.ended_at is None for one in self.batches())

    @invariant()
    def it_ends_once(self) -> None:
        state = self.job.state
        if self.seen_end:
            assert state == self.seen_end
        if state not in OPEN:
            self.seen_end = state
            told = self.plant.sql(
                "SELECT type FROM events WHERE job_id = :id AND type IN ('production.completed',"
                " 'production.cancelled', 'production.failed')",
                id=self.job_id,
            )
            assert Counter(row.type for row in told).total() == 1
            given_up = self.job.error_code == "worker_lost"
            assert given_up or self.job.output_file_id is not None

    def teardown(self) -> None:
        """Left alone, it ends, and so do its batches."""
        if not hasattr(self, "job_id"):
            return
        for session, _, _ in self.attempts:
            self.plant.lose(session)
        for _ in range(60):
            self.gather()
            self.work(True)
            self.answer()
            if self.job.state not in OPEN and all(one.ended_at for one in self.batches()):
                break
        self.it_ends_once()
        assert self.job.state not in OPEN
        assert all(one.state not in OPEN for one in self.batches())


@pytest.mark.timeout(7_200)
def test_any_story_of_a_production_ends_well(database_url: str) -> None:
    tell_stories(ProductionStory, Plant(database_url), usual=(15, 30))
