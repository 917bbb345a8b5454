"""The protocol in plain Python: what the database should hold after every call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from shared.fairness import InLine, Waiting, choose
from shared.lifecycle.claim import SPARE
from shared.lifecycle.working import Held, ReleaseReason

WINDOW = 2
TERMINAL = {"succeeded", "failed", "cancelled", "expired"}
BUDGET = {ReleaseReason.ERROR: ("error_n", 3), ReleaseReason.CRASHED: ("crash_n", 2)}
MAX_LOSSES = 5
SHARD_FACTS = [
    "id", "state", "blocked_n", "epoch", "error_n", "crash_n", "lost_n", "preempt_n", "fenced_n",
    "suspect",
]  # fmt: skip


@dataclass
class ModelJob:
    id: str
    tenant: str
    kind: str
    stage: str
    state: str = "queued"
    stop: str | None = None
    shards_open: int = 1
    usage: int = 0
    """Usage rows: one for each of its shards that succeeded in generating."""

    @property
    def open(self) -> bool:
        return self.state not in TERMINAL


@dataclass
class ModelShard:
    id: int
    job: ModelJob
    pool: str
    stage: str
    state: str
    seq: int | None = None
    epoch: int = 0
    session: str | None = None
    error_n: int = 0
    crash_n: int = 0
    lost_n: int = 0
    preempt_n: int = 0
    fenced_n: int = 0
    suspect: bool = False
    sha256: str | None = None
    blocked_n: int = 0
    model: str | None = None
    name: str = ""
    needs: tuple[str, ...] = ()
    last: bool = False
    """A step of a graph: the one whose result counts, and whose work is no model's."""

    @property
    def rows(self) -> int:
        return 2 if self.job.kind == "batch" and self.stage == "generate" else 1

    @property
    def waits(self) -> bool:
        return self.state in {"queued", "ready"}

    @property
    def in_line(self) -> bool:
        return self.waits and self.blocked_n == 0

    def held_by(self, session: str, epoch: int) -> bool:
        return self.state == "running" and (self.session, self.epoch) == (session, epoch)


@dataclass
class Model:
    """Jobs, shards and sessions; a session is ``alive``, ``expired`` or ``dead``."""

    jobs: dict[str, ModelJob] = field(default_factory=dict)
    shards: dict[int, ModelShard] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    draining: set[str] = field(default_factory=set)
    shares: dict[tuple[str, str], float] = field(default_factory=dict)
    """(pool, tenant) → virtual time; the pool's own without a tenant."""
    _seq: count[int] = field(default_factory=count)

    # --- waiting --------------------------------------------------------------------------

    def submit(self, shard_id: int, job: ModelJob, pool: str, model: str | None) -> None:
        room = self._room(pool, job.tenant) > 0
        self.jobs[job.id] = job
        self.shards[shard_id] = ModelShard(
            shard_id, job, pool, job.stage, "ready" if room else "queued",
            next(self._seq) if room else None, model=model,
        )  # fmt: skip

    def submit_graph(
        self, job: ModelJob, steps: Iterable[tuple[int, str, str | None, str, tuple[str, ...]]]
    ) -> None:
        """``steps`` are (shard id, pool, model, name, needs); the last of them is the last."""
        made = list(steps)
        job.shards_open = len(made)
        self.jobs[job.id] = job
        room = {pool: self._room(pool, job.tenant) for _, pool, _, _, _ in made}
        for shard_id, pool, model, name, needs in made:
            ready = not needs and room[pool] > 0
            room[pool] -= ready
            self.shards[shard_id] = ModelShard(
                shard_id, job, pool, "step", "ready" if ready else "queued",
                next(self._seq) if ready else None, blocked_n=len(needs), name=name, needs=needs,
                last=name == made[-1][3], model=model,
            )  # fmt: skip

    def _room(self, pool: str, tenant: str) -> int:
        """How many more may be ready at once, when nobody waits for a dispatcher."""
        others = [s for s in self._of(pool, tenant) if s.in_line]
        return WINDOW - len(others) if all(s.state == "ready" for s in others) else 0

    def dispatch(self, pool: str) -> int:
        picked: list[tuple[int, int]] = []
        for tenant in {s.job.tenant for s in self.shards.values()}:
            mine = self._of(pool, tenant)
            free = max(0, WINDOW - sum(s.state == "ready" for s in mine))
            queued = sorted(s.id for s in mine if s.state == "queued" and s.in_line)
            picked += list(enumerate(queued[:free]))
        for _, shard_id in sorted(picked):
            self.shards[shard_id].state = "ready"
            self.shards[shard_id].seq = next(self._seq)
        return len(picked)

    def claim(self, session: str, pools: Iterable[str], limit: int) -> list[ModelShard]:
        if self.sessions[session] != "alive" or session in self.draining:
            return []
        taken: list[ModelShard] = []
        for pool in pools:
            taken += self._claim(session, pool, limit - len(taken))
        return taken

    def _claim(self, session: str, pool: str, limit: int) -> list[ModelShard]:
        if limit <= 0:
            return []
        waiting = [s for s in self.shards.values() if s.pool == pool and s.in_line]
        line = sorted((s for s in waiting if s.state == "ready"), key=lambda s: s.seq or 0)
        fits = len(line) == len(waiting) <= limit
        alone = len({s.job.tenant for s in waiting}) == 1
        if fits:
            return self._take(session, line)
        if alone and line and len({s.model for s in line[: limit + 1]}) == 1:
            key, now = (pool, line[0].job.tenant), self.shares.get((pool, ""), 0.0)
            start = max(self.shares.get(key, 0.0), now)
            work = float(sum(shard.rows for shard in line[:limit]))
            self.shares |= {(pool, ""): start, key: start + work}
            return self._take(session, line[:limit])
        picks = choose(
            self._line(pool),
            pool_time=self.shares.get((pool, ""), 0.0),
            max_shards=limit + SPARE,
            max_rows=100_000,
            in_use={s.model for s in self._of(pool) if s.state == "running" and s.model},
        )
        for pick in picks[:limit]:
            key = (pool, pick.tenant_id)
            start = max(self.shares.get(key, 0.0), pick.start)
            self.shares |= {key: start + pick.shard.work, (pool, ""): pick.pool_time}
        return self._take(session, [self.shards[pick.shard.shard_id] for pick in picks[:limit]])

    def _line(self, pool: str) -> list[InLine]:
        now = self.shares.get((pool, ""), 0.0)
        found = []
        for tenant in sorted({s.job.tenant for s in self._of(pool)}):
            mine = sorted(self._of(pool, tenant), key=lambda s: s.seq or 0)
            shards = [
                Waiting(s.id, s.rows, float(s.rows), s.model, 0, s.seq or 0)
                for s in mine
                if s.state == "ready"
            ]
            start = max(self.shares.get((pool, tenant), 0.0), now)
            served = any(s.state == "running" for s in mine)
            more = any(s.state == "queued" and s.in_line for s in mine)
            if shards:
                found.append(InLine(tenant, 1.0, start, served, None, shards, more))
        return found

    @staticmethod
    def _take(session: str, shards: list[ModelShard]) -> list[ModelShard]:
        for shard in shards:
            shard.state, shard.session = "running", session
            shard.epoch += 1
            shard.job.state = "running"
        return shards

    def _of(self, pool: str, tenant: str | None = None) -> list[ModelShard]:
        return [
            s for s in self.shards.values() if s.pool == pool and tenant in {None, s.job.tenant}
        ]

    # --- ends -----------------------------------------------------------------------------

    def commit(self, session: str, held: Held, state: str, sha256: str | None) -> bool:
        """Whether the commit is accepted, and, through the shard's state, whether it was new."""
        shard = self.shards[held.shard_id]
        if not shard.held_by(session, held.epoch):
            mine = (
                (shard.session, shard.epoch) == (session, held.epoch)
                and shard.state == state
                and shard.sha256 == sha256
            )
            shard.fenced_n += not mine
            return mine
        shard.state, shard.sha256 = state, sha256
        if shard.stage == "generate" and (shard.job.kind == "batch" or state == "succeeded"):
            shard.job.usage += 1
        if shard.stage == "step":
            shard.job.usage += state == "succeeded" and not shard.last
            self._step_closed(shard)
        elif shard.job.kind == "generate":
            self._end(shard.job, (shard.job.stop or state) if state == "cancelled" else state)
        elif shard.stage == "generate":
            self._count_down(shard.job)
        elif shard.stage == "assemble":
            self._end(shard.job, shard.job.stop or "succeeded")
        return True

    def validated(self, job: ModelJob, slice_ids: list[int]) -> None:
        job.stage, job.shards_open = "generate", len(slice_ids)
        for shard_id in slice_ids:
            self.shards[shard_id] = ModelShard(shard_id, job, "text", "generate", "queued")

    def assembling(self, shard_id: int, job: ModelJob) -> None:
        """The database opened the assembly that ``awaits_assembly`` asks for."""
        self.shards[shard_id] = ModelShard(
            shard_id, job, "upkeep", "assemble", "ready", next(self._seq)
        )

    def awaits_assembly(self) -> list[ModelJob]:
        begun = {s.job.id for s in self.shards.values() if s.stage == "assemble"}
        return [
            job for job in self.jobs.values() if job.stage == "assemble" and job.id not in begun
        ]

    def release(self, session: str, held: Held, reason: ReleaseReason) -> str | None:
        shard = self.shards[held.shard_id]
        if not shard.held_by(session, held.epoch):
            shard.fenced_n += 1
            return None
        spent = False
        if reason in BUDGET:
            column, budget = BUDGET[reason]
            setattr(shard, column, getattr(shard, column) + 1)
            spent = getattr(shard, column) >= budget
        shard.preempt_n += reason == ReleaseReason.PREEMPTED
        shard.suspect |= reason in {ReleaseReason.SUSPECT, ReleaseReason.CRASHED}
        self._leave(shard, spent)
        return shard.state

    def recover(self) -> None:
        for shard in list(self.shards.values()):
            if shard.state == "running" and self.sessions[shard.session or ""] == "dead":
                shard.suspect |= shard.lost_n >= 1
                shard.lost_n += 1
                self._leave(shard, shard.lost_n >= MAX_LOSSES)

    def stop(self, job: ModelJob) -> bool:
        if not job.open or job.stop or job.stage == "assemble":
            return False
        job.stop = "cancelled"
        self.sweep()
        return True

    def sweep(self) -> None:
        for shard in list(self.shards.values()):
            if shard.job.open and shard.job.stop and shard.waits and shard.stage != "assemble":
                self._close(shard, "cancelled")

    def _leave(self, shard: ModelShard, spent: bool) -> None:
        """``running`` ended without a commit."""
        stops = shard.job.stop and shard.stage != "assemble"
        if stops or (shard.stage == "step" and not shard.job.open):
            self._close(shard, "cancelled")
        elif spent:
            self._close(shard, "failed")
        else:
            shard.state = "ready"
            if shard.job.kind == "generate":
                shard.job.state = "queued"

    def _close(self, shard: ModelShard, state: str) -> None:
        shard.state = state
        if shard.stage == "step":
            self._step_closed(shard)
        elif shard.job.kind == "batch" and shard.stage == "generate":
            self._count_down(shard.job)
        else:
            self._end(shard.job, (shard.job.stop or state) if state == "cancelled" else state)

    def _step_closed(self, step: ModelShard) -> None:
        job = step.job
        graph = [s for s in self.shards.values() if s.job is job]
        if not job.open:
            return
        job.shards_open -= 1
        if step.state == "succeeded" and not step.last:
            for other in graph:
                other.blocked_n -= step.name in other.needs and other.state == "queued"
        else:
            for other in graph:
                if other.waits:
                    other.state = "cancelled"
                    job.shards_open -= 1
        if step.state == "failed" or (step.last and step.state == "succeeded"):
            self._end(job, step.state)
        elif not any(s.waits or s.state == "running" for s in graph):
            self._end(job, job.stop or "cancelled")

    def _count_down(self, job: ModelJob) -> None:
        job.shards_open -= 1
        if job.shards_open == 0:
            job.stage, job.shards_open = "assemble", 1

    @staticmethod
    def _end(job: ModelJob, state: str) -> None:
        job.state, job.shards_open = state, 0


def facts(shard: Any) -> dict[str, Any]:
    values = {name: getattr(shard, name) for name in SHARD_FACTS}
    if hasattr(shard, "output_sha256"):
        values |= {"session_id": shard.session_id, "output_sha256": shard.output_sha256}
    return values
