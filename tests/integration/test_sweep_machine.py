"""Any order of claims, decisions, deaths, ends of trials, stops and pauses: a sweep never has more
trials than it may, never a trial twice, waits only for what will come, and ends once.

``PRESSRUN_TEST_PROTOCOL=soak`` runs many more and longer stories.
"""

from __future__ import annotations

from collections.abc import Callable
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

from shared.lifecycle.working import Claim, NewTrial, ReleaseReason
from tests.integration.protocol import TENANT
from tests.integration.stories import tell_stories
from tests.integration.sweep_case import SweepPlant
from tests.integration.tuning_case import training_end

TRIALS, PARALLEL = 4, 2
OPEN = {"queued", "running"}
PICK = st.integers(0, 1_000)


class SweepStory(RuleBasedStateMachine):
    """One sweep, upkeep that dies and comes back as a zombie, trainers that do the same."""

    plant: SweepPlant

    @initialize()
    def begin(self) -> None:
        self.plant.sql(
            "TRUNCATE tenants, sessions, jobs, shards, events, usage, files, models CASCADE"
        )
        self.plant.tenant(TENANT)
        self.sessions = 0
        self.attempts: list[tuple[str, Claim, list[NewTrial]]] = []
        self.trainings: list[tuple[str, Claim]] = []
        self.plant.session("up", pools=["upkeep"])
        self.job_id = self.plant.new_sweep(trials=TRIALS, parallel=PARALLEL)
        self.seen_end = ""

    def _session(self, pool: str) -> str:
        self.sessions += 1
        return self.plant.session(f"s{self.sessions}", pools=[pool])

    @property
    def job(self) -> Any:
        return self.plant.job(self.job_id)

    # --- upkeep ---------------------------------------------------------------------------------

    @rule(commits=st.booleans())
    def decide(self, commits: bool) -> None:
        """Claims the search if it can be claimed, reads, and commits, or waits with that."""
        session = self._session("upkeep")
        self.plant.dispatch("upkeep")
        for claim in self.plant.claim(session, pools=["upkeep"]):
            trials = self.plant.trials(self.job_id)
            places = min(PARALLEL - sum(not t.ended for t in trials), TRIALS - len(trials))
            self.attempts.append((session, claim, self.plant.new_trials(self.job_id, places)))
            if commits:
                self.commit(len(self.attempts) - 1)

    @precondition(lambda self: self.attempts)
    @rule(pick=PICK)
    def commit(self, pick: int) -> None:
        """Any decision there ever was: by its holder, by a zombie, again."""
        session, claim, new = self.attempts[pick % len(self.attempts)]
        before = self.plant.search(self.job_id)
        holds = (before.state, before.session_id, before.epoch) == (
            "running",
            session,
            claim.epoch,
        )
        trials = self.plant.trials(self.job_id)
        done = len(trials) == TRIALS and all(trial.ended for trial in trials)
        if done and self.job.stop_reason is None and holds:
            self._end(session, claim)
            return
        rests = self.job.paused_at is not None or self.job.stop_reason is not None
        accepted = self.plant.add(claim, new, parallel=PARALLEL, by=session)
        assert accepted or not holds
        if rests or not holds:
            assert len(self.plant.trials(self.job_id)) == len(trials)

    def _end(self, session: str, claim: Claim) -> None:
        if any(trial.value is not None for trial in self.plant.trials(self.job_id)):
            assert self.plant.finish_sweep(claim, by=session)
        else:
            self.plant.fail(claim, session)

    @rule()
    def collect(self) -> None:
        self.plant.collect()

    @rule()
    def carry_over(self) -> None:
        self.plant.carry_over()

    @rule()
    def sweep_stopped(self) -> None:
        self.plant.sweep()

    @precondition(lambda self: self.sessions)
    @rule(pick=PICK)
    def vanish(self, pick: int) -> None:
        self.plant.lose(f"s{pick % self.sessions + 1}")

    # --- trainers -------------------------------------------------------------------------------

    @rule()
    def train(self) -> None:
        session = self._session("train")
        self.plant.dispatch("train")
        claims = self.plant.claim(session, pools=["train"], max_shards=1)
        self.trainings += [(session, claim) for claim in claims]

    @precondition(lambda self: self.trainings)
    @rule(pick=PICK, how=st.sampled_from(["finish", "finish", "fail", *ReleaseReason]))
    def end_training(self, pick: int, how: str) -> None:
        session, claim = self.trainings[-1 - pick % len(self.trainings)]
        if how == "finish":
            metrics = {"after": {"valid_loss": claim.shard_id / 100}}
            self.plant.finish_training(claim, training_end(claim, metrics=metrics), session)
        elif how == "fail":
            self.plant.fail(claim, session)
        else:
            self.plant.release(session, claim.held, ReleaseReason(how), code="why")

    # --- the tenant -----------------------------------------------------------------------------

    @precondition(lambda self: self.plant.trials(self.job_id))
    @rule(pick=PICK, act=st.sampled_from(["stop", "prune", "pause", "resume"]))
    def act_on_a_trial(self, pick: int, act: str) -> None:
        trials = self.plant.trials(self.job_id)
        getattr(self.plant, act)(trials[pick % len(trials)].job_id)

    @rule(act=st.sampled_from(["pause", "resume", "resume"]))
    def hold(self, act: str) -> None:
        getattr(self.plant, act)(self.job_id)

    @precondition(lambda self: self.sessions > 6)
    @rule()
    def stop(self) -> None:
        self.plant.stop(self.job_id)
        running = [t.job_id for t in self.plant.trials(self.job_id) if t.state in OPEN]
        assert all(self.plant.job(trial).stop_reason is not None for trial in running)

    # --- what always holds ----------------------------------------------------------------------

    @invariant()
    def it_has_the_trials_that_it_may_have(self) -> None:
        trials = self.plant.trials(self.job_id)
        assert [trial.number for trial in trials] == list(range(1, len(trials) + 1))
        assert len(trials) <= TRIALS
        assert sum(not trial.ended for trial in trials) <= PARALLEL

    @invariant()
    def it_waits_only_for_what_will_come(self) -> None:
        search, job = self.plant.search(self.job_id), self.job
        if search.state == "queued" and search.blocked_n:
            waits = any(not trial.ended for trial in self.plant.trials(self.job_id))
            assert waits or job.paused_at is not None

    @invariant()
    def it_ends_once(self) -> None:
        job = self.job
        assert self.seen_end in ("", job.state)
        self.seen_end = "" if job.state in OPEN else job.state
        ends = [
            kind for kind in self.plant.events(self.job_id)
            if kind.endswith((".succeeded", ".failed", ".cancelled"))
        ]  # fmt: skip
        assert len(ends) == (1 if self.seen_end else 0)
        if job.state == "succeeded":
            assert all(trial.ended for trial in self.plant.trials(self.job_id))
            assert job.result["best"]["value"] == min(
                trial.value for trial in self.plant.trials(self.job_id) if trial.value is not None
            )

    def teardown(self) -> None:
        """Healthy workers and passes bring it to its end, and leave no trial open."""
        if not hasattr(self, "job_id"):
            return
        for number in range(self.sessions):
            self.plant.lose(f"s{number + 1}")
        for trial in [self.job_id, *(t.job_id for t in self.plant.trials(self.job_id))]:
            self.plant.resume(trial)
        steps: list[Callable[[], None]] = [
            self.collect,
            self.carry_over,
            self.sweep_stopped,
            lambda: self.decide(True),
            self.train,
            self._finish_trainings,
        ]
        for _ in range(40):
            for step in steps:
                step()
                self.it_has_the_trials_that_it_may_have()
            trials = self.plant.trials(self.job_id)
            if self.job.state not in OPEN and all(trial.ended for trial in trials):
                break
        self.it_ends_once()
        assert self.job.state not in OPEN
        assert all(trial.ended and trial.state not in OPEN for trial in trials)

    def _finish_trainings(self) -> None:
        for place in range(len(self.trainings)):
            session, claim = self.trainings[place]
            if self.plant.shard(claim.shard_id).state != "running":
                continue
            if self.plant.job(claim.job_id).stop_reason is not None:
                self.plant.release(session, claim.held, ReleaseReason.PREEMPTED)
            else:
                self.end_training(-1 - place, "finish")


@pytest.mark.timeout(7_200)
def test_any_story_of_a_sweep_ends_well(database_url: str) -> None:
    tell_stories(SweepStory, SweepPlant(database_url), usual=(12, 30))
