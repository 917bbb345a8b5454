"""Any order of claims, heartbeats, deaths, recoveries, commits, stops: the database does what the
model says, epochs only grow, nothing leaves a terminal state, usage is counted once.

``PRESSRUN_TEST_PROTOCOL=soak`` runs many more and longer stories.
"""

from __future__ import annotations

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

from shared.lifecycle import working
from shared.lifecycle.working import Claim, ReleaseReason
from shared.states import ShardState
from tests.integration import graphs
from tests.integration.protocol import OTHER, TENANT, Plant
from tests.integration.protocol_model import TERMINAL, WINDOW, Model, ModelJob, facts
from tests.integration.stories import tell_stories

POOLS = ["text", "upkeep"]
MAX_SESSIONS = 4
MAX_JOBS = 8
PICK = st.integers(0, 1_000)
SHAS = ["a" * 64, "b" * 64]
ASSEMBLED = "f" * 64 + "+"
SHAPES: list[dict[str, tuple[str, ...]]] = [
    {"copy": (), "left": ("copy",), "right": ("copy",), "all": ("left", "right")},
    {"one": (), "two": (), "all": ("one", "two")},
    {"aside": (), "main": (), "all": ("main",)},
]


class Protocol(RuleBasedStateMachine):
    """Several workers, zombies among them; single jobs and graphs of two tenants, and one batch."""

    plant: Plant

    @initialize()
    def begin(self) -> None:
        self.plant.sql(
            "TRUNCATE tenants, sessions, jobs, shards, shares, events, usage, files CASCADE"
        )
        for tenant in (TENANT, OTHER):
            self.plant.tenant(tenant)
        self.model = Model()
        self.attempts: list[tuple[str, Claim]] = []
        self.seen: dict[int, tuple[str, int]] = {}
        for _ in range(2):
            self.new_session()
            self.submit(TENANT)
        self.submit(OTHER)
        self.submit_batch()
        self.submit_graph(TENANT, SHAPES[0])

    # --- tenants --------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.jobs) < MAX_JOBS)
    @rule(tenant=st.sampled_from([TENANT, TENANT, OTHER]))
    def submit(self, tenant: str) -> None:
        job_id = self.plant.generation(tenant, window=WINDOW)
        self._submitted(ModelJob(job_id, tenant, "generate", "generate"), "text")

    @precondition(lambda self: all(job.kind != "batch" for job in self.model.jobs.values()))
    @rule()
    def submit_batch(self) -> None:
        self._submitted(ModelJob(self.plant.batch(), TENANT, "batch", "validate"), "upkeep")

    @precondition(lambda self: len(self.model.jobs) < MAX_JOBS)
    @rule(tenant=st.sampled_from([TENANT, OTHER]), shape=st.sampled_from(SHAPES))
    def submit_graph(self, tenant: str, shape: dict[str, tuple[str, ...]]) -> None:
        job_id = graphs.submit(self.plant, shape, tenant=tenant, window=WINDOW, right="text")
        made = zip(self.plant.shards(job_id), shape.items(), strict=True)
        self.model.submit_graph(
            ModelJob(job_id, tenant, "campaign", "step"),
            [(shard.id, shard.pool, shard.model, name, needs) for shard, (name, needs) in made],
        )

    def _submitted(self, job: ModelJob, pool: str) -> None:
        (shard,) = self.plant.shards(job.id)
        self.model.submit(shard.id, job, pool, shard.model)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=PICK)
    def stop(self, pick: int) -> None:
        job = choose(list(self.model.jobs.values()), pick)
        assert self.plant.stop(job.id, job.tenant) == self.model.stop(job)

    # --- workers --------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.sessions) < MAX_SESSIONS)
    @rule()
    def new_session(self) -> None:
        session = self.plant.session(f"w{len(self.model.sessions)}")
        self.model.sessions[session] = "alive"

    @rule(pick=PICK, back=st.sampled_from([*ReleaseReason, "vanish", "keep"]))
    def work(self, pick: int, back: str) -> None:
        """A good session claims, and perhaps loses what it got: there is no story without."""
        sessions = list(self.model.sessions)
        good = [n for n, name in enumerate(sessions) if self._is_good(name)]
        if not good:
            good = [len(sessions)]
            self.new_session()
        chosen, before = choose(good, pick), len(self.attempts)
        for pool in POOLS:
            self.dispatch(pool)
        self.claim(chosen, 2)
        if back == "vanish":
            self.vanish(chosen)
        elif back != "keep":
            for _ in self.attempts[before:]:
                self.release(-1 - before, ReleaseReason(back))
                before += 1

    def _is_good(self, session: str) -> bool:
        return self.model.sessions[session] == "alive" and session not in self.model.draining

    @rule(pick=PICK, limit=st.integers(1, 3))
    def claim(self, pick: int, limit: int) -> None:
        session = choose(list(self.model.sessions), pick)
        claims = self.plant.claim(session, pools=POOLS, max_shards=limit)
        expected = self.model.claim(session, POOLS, limit)
        assert [(c.shard_id, c.epoch) for c in claims] == [(s.id, s.epoch) for s in expected]
        self.attempts += [(session, claim) for claim in claims]

    @precondition(lambda self: self.attempts)
    @rule(
        pick=PICK,
        sha256=st.sampled_from(SHAS),
        state=st.sampled_from(["succeeded"] * 4 + ["cancelled", "failed"]),
    )
    def commit(self, pick: int, sha256: str, state: str) -> None:
        """Of any attempt there ever was: by its holder, by a zombie, again."""
        session, claim = choose(self.attempts, -1 - pick)
        self._commit(session, claim, sha256, state)

    def _commit(self, session: str, claim: Claim, sha256: str, state: str) -> None:
        held, shard = claim.held, self.model.shards[claim.shard_id]
        new = shard.held_by(session, held.epoch)
        if claim.stage == "validate":
            accepted = self.plant.finish_validation(session, held, slices=3)
            assert accepted == self.model.commit(session, held, "succeeded", None)
            if new:
                ids = [s.id for s in self.plant.shards(claim.job_id) if s.stage == "generate"]
                self.model.validated(shard.job, ids)
        elif claim.stage == "assemble":
            accepted = self.plant.finish_assembly(session, held)
            assert accepted == self.model.commit(session, held, "succeeded", ASSEMBLED)
        elif claim.stage == "step":
            accepted = graphs.finish(
                self.plant, claim, session, sha256=sha256, state=ShardState(state)
            )
            assert accepted == self.model.commit(session, held, state, sha256)
        elif claim.kind == "batch":
            accepted = self.plant.finish_slice(
                session, claim, sha256=sha256, state=ShardState(state)
            )
            assert accepted == self.model.commit(session, held, state, sha256)
        else:
            accepted = self.plant.finish(session, held, sha256, state=ShardState(state))
            again = shard.state if not new and shard.sha256 == sha256 else state
            assert accepted == self.model.commit(session, held, again, sha256)

    @precondition(lambda self: self.attempts)
    @rule(pick=PICK, reason=st.sampled_from(list(ReleaseReason)))
    def release(self, pick: int, reason: ReleaseReason) -> None:
        session, claim = choose(self.attempts, -1 - pick)
        state = self.plant.release(session, claim.held, reason, code="why")
        assert state == self.model.release(session, claim.held, reason)

    @rule(pick=PICK)
    def heartbeat(self, pick: int) -> None:
        session = choose(list(self.model.sessions), pick)
        with self.plant.connection() as connection:
            alive = working.heartbeat(connection, session, ttl_seconds=600)
        assert alive == (self.model.sessions[session] != "dead")
        if alive:
            self.model.sessions[session] = "alive"

    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        session = choose(list(self.model.sessions), pick)
        with self.plant.connection() as connection:
            working.drain_session(connection, session)
        self.model.draining.add(session)

    # --- upkeep ---------------------------------------------------------------------------

    @rule(pick=PICK)
    def expire_session(self, pick: int) -> None:
        session = choose(list(self.model.sessions), pick)
        self.plant.expire_session(session)
        if self.model.sessions[session] == "alive":
            self.model.sessions[session] = "expired"

    @rule(pick=PICK)
    def declare_dead(self, pick: int) -> None:
        session = choose(list(self.model.sessions), pick)
        expired = self.model.sessions[session] == "expired"
        assert self.plant.declare_dead(session) == expired
        if expired:
            self.model.sessions[session] = "dead"

    @rule(pick=PICK)
    def vanish(self, pick: int) -> None:
        """All that the reaper does about a worker, which may come back as a zombie."""
        session = choose(list(self.model.sessions), pick)
        self.plant.lose(session)
        self.model.sessions[session] = "dead"
        self.model.recover()

    @rule()
    def recover(self) -> None:
        self.plant.recover()
        self.model.recover()

    @rule()
    def sweep(self) -> None:
        self.plant.sweep()
        self.model.sweep()

    @rule(pool=st.sampled_from(POOLS))
    def dispatch(self, pool: str) -> None:
        assert self.plant.dispatch(pool, window=WINDOW) == self.model.dispatch(pool)

    # --- what always holds ----------------------------------------------------------------

    @invariant()
    def database_is_as_the_model_says(self) -> None:
        rows = self.plant.sql("SELECT * FROM shards ORDER BY id")
        for job in self.model.awaits_assembly():
            (row,) = [r for r in rows if r.job_id == job.id and r.stage == "assemble"]
            self.model.assembling(row.id, job)
        assert [facts(row) for row in rows] == [
            facts(shard) | {"session_id": shard.session, "output_sha256": shard.sha256}
            for _, shard in sorted(self.model.shards.items())
        ]
        jobs = self.plant.sql("SELECT id, state, stage, stop_reason, shards_open FROM jobs")
        assert {tuple(row) for row in jobs} == {
            (job.id, job.state, job.stage, job.stop, job.shards_open)
            for job in self.model.jobs.values()
        }
        given = self.plant.sql("SELECT pool, tenant_id, virtual_time FROM shares")
        assert {(row.pool, row.tenant_id): row.virtual_time for row in given} == self.model.shares
        for row in rows:
            self._moved_forward(row)

    def _moved_forward(self, row: Any) -> None:
        """Said without the model: epochs never fall, and a terminal state is for good."""
        state, epoch = self.seen.get(row.id, ("queued", 0))
        assert row.epoch >= epoch
        assert state not in TERMINAL or (row.state, row.epoch) == (state, epoch)
        self.seen[row.id] = (row.state, row.epoch)

    @invariant()
    def each_job_ends_once_and_is_counted_once(self) -> None:
        usage = dict(
            tuple(r) for r in self.plant.sql("SELECT job_id, count(*) FROM usage GROUP BY 1")
        )
        assert usage == {job.id: job.usage for job in self.model.jobs.values() if job.usage}
        ends = self.plant.sql(
            "SELECT job_id, count(*) FROM events WHERE type ~"
            " '[.](succeeded|completed|failed|cancelled|expired)$' GROUP BY 1"
        )
        assert {tuple(row) for row in ends} == {
            (job.id, 1) for job in self.model.jobs.values() if not job.open
        }

    def teardown(self) -> None:
        """A healthy worker and upkeep bring every job to its end."""
        if not hasattr(self, "model"):
            return
        for pick in range(len(self.model.sessions)):
            self.vanish(pick)
        healer = self.plant.session("healer")
        self.model.sessions[healer] = "alive"
        for _ in range(100):
            self.sweep()
            for pool in POOLS:
                self.dispatch(pool)
            self.database_is_as_the_model_says()
            claims = self.plant.claim(healer, pools=POOLS)
            assert len(claims) == len(self.model.claim(healer, POOLS, 64))
            for claim in claims:
                self._commit(healer, claim, SHAS[0], "succeeded")
            if not any(job.open for job in self.model.jobs.values()):
                break
        self.database_is_as_the_model_says()
        self.each_job_ends_once_and_is_counted_once()
        assert not any(job.open for job in self.model.jobs.values())


def choose(items: list[Any], pick: int) -> Any:
    return items[pick % len(items)]


@pytest.mark.timeout(7_200)
def test_the_database_follows_the_model(database_url: str) -> None:
    tell_stories(Protocol, Plant(database_url), usual=(60, 40), soak=(1_000, 80))
