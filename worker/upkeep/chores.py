"""Shards of the upkeep pool: validating and assembling batches, unfolding rows that are graphs,
packing what they made, judging the data of fine-tunings, importing models, joining uploads. On
threads of this process."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from sqlalchemy import Engine

from shared.db.session import autocommit
from shared.db.steps import graphs_of, pools_after, step_of
from shared.doorbell import Ringer
from shared.lifecycle import working
from shared.lifecycle.working import Claim, GenerationEnd, Held, ReleaseReason, Watched
from shared.plans import BUNDLE
from shared.pools import UPKEEP
from shared.specs.productions import KIND as PRODUCTION
from shared.specs.uploads import KIND as JOIN
from shared.states import ShardState, Stage
from shared.storage.base import Store
from worker.rows import read_slice
from worker.session import Session
from worker.tuning.data.limits import DataLimits
from worker.upkeep.assembly import Interrupted
from worker.upkeep.batches import BatchStages, InputLimits
from worker.upkeep.bundle import make_bundle
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.imports.chore import IMPORT, ModelImports
from worker.upkeep.joining import Joins
from worker.upkeep.productions.checking import Limits
from worker.upkeep.productions.chore import Productions
from worker.upkeep.productions.validating import Validation
from worker.upkeep.sweeps import Sweeps
from worker.upkeep.tuning_data import TuningData
from worker.upkeep.unfolding import collect, unfold

log = structlog.get_logger()

THREADS = 4
OF_A_TENANT = 2
"""Chores of one tenant at a time, in one process: the other threads are for others."""
FINE_TUNE = "fine_tune"
"""The kind of jobs whose first stage is ``tuning_data``."""


class UpkeepChores:
    """Runs the shards of every stage that upkeep has. ``begin``, ``obey`` and ``abandon_all`` are
    called by the supervisor's thread, the work happens on others."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        session: Session,
        ringer: Ringer,
        *,
        on_closed: Callable[[Held], None],
        max_rows: int,
        max_line_bytes: int,
        max_reported: int,
        scratch: Path | None = None,
        moderation_model: str | None = None,
    ) -> None:
        """``scratch`` is a folder for temporary copies of uploads; None: the system's.
        ``moderation_model`` moderates for rows that name none."""
        self._database = database
        self._store = store
        self._ringer = ringer
        self._on_closed = on_closed
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="chore")
        self._chores: dict[Held, Chore] = {}
        self._ends = ChoreEnds(database, session, ringer)
        self._batches = BatchStages(
            database,
            store,
            self._ends,
            ring=self._ring,
            limits=InputLimits(rows=max_rows, line_bytes=max_line_bytes, reported=max_reported),
            moderation_model=moderation_model,
        )
        self._sweeps = Sweeps(database, store, self._ends, ringer)
        self._tuning_data = TuningData(
            database,
            store,
            self._ends,
            ringer,
            limits=DataLimits(line_bytes=max_line_bytes, rows=max_rows, reported=max_reported),
            scratch=scratch,
        )
        production = (
            database,
            store,
            self._ends,
            ringer,
            Limits(candidates=max_rows, line_bytes=max_line_bytes, reported=max_reported),
            scratch,
        )
        self._productions = Productions(*production)
        self._firsts = {
            PRODUCTION: Validation(*production).run,
            FINE_TUNE: self._tuning_data.run,
            IMPORT: ModelImports(database, store, self._ends, scratch=scratch).run,
            JOIN: Joins(database, store, self._ends).run,
        }

    def room(self) -> int:
        return max(0, THREADS - len(self._chores))

    def apart(self) -> frozenset[str]:
        """Tenants with as many chores under way as one may have."""
        running = Counter(chore.claim.tenant_id for chore in list(self._chores.values()))
        return frozenset(tenant for tenant, chores in running.items() if chores >= OF_A_TENANT)

    @property
    def idle(self) -> bool:
        return not self._chores

    def begin(self, claim: Claim, session_id: str) -> None:
        chore = self._chores[claim.held] = Chore(claim, session_id)
        self._threads.submit(self._run, chore)

    def obey(self, watched: Sequence[Watched]) -> None:
        """Interrupts chores that were taken away or whose batch was asked to stop."""
        held = {item.held: item.stop_reason for item in watched}
        for key, chore in list(self._chores.items()):
            if key not in held or held[key] is not None:
                chore.interrupted.set()

    def drain(self) -> None:
        """Chores are short: they are waited for."""

    def abandon_all(self) -> None:
        for chore in list(self._chores.values()):
            chore.interrupted.set()

    def close(self) -> None:
        """Interrupts what is under way; each chore gives its shard back before this returns. With
        the database away it does not wait: the shards are recovered when the lease ends."""
        self._ends.close()
        self.abandon_all()
        self._threads.shutdown(wait=True)

    def _run(self, chore: Chore) -> None:
        claim = chore.claim
        started = time.monotonic()
        try:
            self._do(chore)
        except Interrupted:
            self._ends.give_back(chore, ReleaseReason.PREEMPTED)
        except Exception as error:
            self._ends.judge(chore, error)
        finally:
            self._chores.pop(claim.held, None)
            self._on_closed(claim.held)
            log.info(
                "chore_done",
                job=claim.job_id,
                stage=claim.stage,
                seconds=round(time.monotonic() - started, 3),
            )

    def _do(self, chore: Chore) -> None:
        match chore.claim.stage:
            case Stage.VALIDATE:
                self._firsts.get(chore.claim.kind, self._batches.validate)(chore)
            case Stage.GENERATE:
                self._unfold_or_collect(chore)
            case Stage.STEP:
                self._bundle(chore)
            case Stage.SWEEP:
                self._sweeps.run(chore)
            case Stage.PRODUCE:
                self._productions.run(chore)
            case Stage.ASSEMBLE:
                self._batches.assemble(chore)
                self._productions.hear_of(chore)
            case stage:
                raise AssertionError(f"upkeep has no stage {stage}")

    # --- graphs ---------------------------------------------------------------------------

    def _unfold_or_collect(self, chore: Chore) -> None:
        """A slice whose rows are graphs: steps the first time, lines the second."""
        claim = chore.claim
        rows = read_slice(self._store, claim)
        with autocommit(self._database) as connection:
            outcomes = graphs_of(connection, claim.shard_id)
        if outcomes:
            end = collect(self._store, claim, rows, outcomes)
            self._ends.commit(
                chore, lambda connection: working.finish_slice(connection, chore.session_id, end)
            )
            self._ringer.ring(UPKEEP)
            return
        models = self._batches.models(claim.tenant_id)
        graphs = unfold(claim, rows, models, chore.interrupted.is_set)
        self._ends.commit(
            chore,
            lambda connection: working.unfold_slice(
                connection, chore.session_id, claim.held, graphs
            ),
        )
        roots = {step.pool for graph in graphs for step in graph.steps if not step.needs}
        self._ring(sorted(roots) or [UPKEEP])

    def _bundle(self, chore: Chore) -> None:
        claim = chore.claim
        with autocommit(self._database) as connection:
            step = step_of(connection, claim.shard_id)
        if step.endpoint != BUNDLE:
            raise AssertionError(f"upkeep has no step {step.endpoint}")
        body, artifacts = make_bundle(
            lambda: autocommit(self._database),
            self._store,
            claim,
            step,
            chore.interrupted.is_set,
        )
        result = json.dumps(body, separators=(",", ":"))
        end = GenerationEnd(
            claim.held,
            ShardState.SUCCEEDED,
            hashlib.sha256(result.encode()).hexdigest(),
            result=result,
            artifacts=artifacts,
        )
        self._ends.commit(
            chore, lambda connection: working.finish_step(connection, chore.session_id, end)
        )
        with autocommit(self._database) as connection:
            self._ring(pools_after(connection, claim.shard_id))

    def _ring(self, pools: Sequence[str]) -> None:
        for pool in pools:
            self._ringer.ring(pool)
