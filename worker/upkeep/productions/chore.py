"""Shards of stage ``produce``: what a batch has answered is read, the next one is added, and at
last the output is written. Nothing is remembered between two claims but what Postgres and the
store hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.db.productions import ProducedBatch, Production, production_of
from shared.db.session import autocommit
from shared.doorbell import Ringer
from shared.ids import new_batch_id, new_file_id
from shared.lifecycle import working
from shared.lifecycle.working import NewFile, NewProductionBatch, ProductionEnd
from shared.pools import UPKEEP
from shared.productions.augmenting import augmenting
from shared.productions.tables import TableKind
from shared.specs.productions import progress_at
from shared.states import JobState
from shared.storage.base import Store
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.productions.augmenting_output import TrainingFile
from worker.upkeep.productions.checking import Limits
from worker.upkeep.productions.duplicates import NearDuplicates
from worker.upkeep.productions.ending import Tally, summary_of, write_lines
from worker.upkeep.productions.joining import (
    Audiences,
    Item,
    Numbered,
    fresh_items,
    items_of,
    last_words,
)
from worker.upkeep.productions.opening import Order, State, read_order, read_state
from worker.upkeep.productions.records import read_records
from worker.upkeep.productions.references import load_references
from worker.upkeep.productions.results import MEDIA_TYPES, OutputWriter, open_output
from worker.upkeep.productions.rounds import Made, Passage, Position
from worker.upkeep.productions.settling import Settler
from worker.upkeep.productions.workbench import FINAL, Workbench

log = structlog.get_logger()

DEFAULT_KEEP_SECONDS = 30 * 86_400
"""The output lives for 30 days unless ``output_expires_after`` says otherwise."""


@dataclass(frozen=True, slots=True)
class Productions:
    """Runs the later shards of productions, on the threads of the chores."""

    database: Engine
    store: Store
    ends: ChoreEnds
    ringer: Ringer
    limits: Limits
    scratch: Path | None

    def run(self, chore: Chore) -> None:
        """Raises Interrupted, and for the chore's ``judge`` whatever else goes wrong."""
        with autocommit(self.database) as connection:
            found = production_of(connection, chore.claim.job_id)
        state = read_state(found.found)
        references = load_references(self.store, state.references)
        order = read_order(chore.claim, state.audiences, references)
        _Claimed(self, chore, order, found, state).run()

    def hear_of(self, chore: Chore) -> None:
        """A batch has ended; if it is a production's, that need not wait for the pass."""
        if not json.loads(chore.claim.spec).get("production"):
            return
        with suppress(SQLAlchemyError), self.database.begin() as connection:
            working.collect_production_batches(connection)
        self.ringer.ring(UPKEEP)


class _Claimed:
    """One claim of one production."""

    def __init__(
        self, tools: Productions, chore: Chore, order: Order, found: Production, state: State
    ) -> None:
        self._tools = tools
        self._chore = chore
        self._order = order
        self._found = found
        self._state = state
        self._bench = Workbench(
            tools.database,
            tools.store,
            tools.scratch,
            chore.claim,
            order,
            chore.interrupted.is_set,
        )
        self._complete = True

    def run(self) -> None:
        at = Position(self._found.round, self._found.phase)
        if self._state.asked is None:
            made, batch = self._begin(), None
        else:
            batch = self._found.batches.get((at.round, at.phase))
            made = self._go_on(at, batch, self._closing(batch))
        while made.next is not None and (not made.requests or self._is_stopping):
            # Nobody is to be asked: what comes next has no answers.
            at = made.next
            made = self._go_on(at, None, self._closing(None))
        if made.next is None:
            self._finish(at, batch)
        else:
            self._continue(made, made.next)

    @property
    def _is_stopping(self) -> bool:
        return self._chore.claim.stop_reason is not None

    def _closing(self, batch: ProducedBatch | None) -> str | None:
        """The code of what is not done, where nothing more will be."""
        reason = self._chore.claim.stop_reason
        if reason is not None:
            return f"batch_{reason}"
        if batch is None or batch.state == JobState.SUCCEEDED:
            return None
        return f"batch_{batch.state}"

    # --- passes ---------------------------------------------------------------------------------

    def _begin(self) -> Made:
        with self._bench.rows() as rows:
            made = self._passage(None, None).begin(
                fresh_items(rows, self._audiences, self._order.work.plan)
            )
        return self._noted(made)

    def _go_on(self, at: Position, batch: ProducedBatch | None, closing: str | None) -> Made:
        ends_round = closing is not None or at.phase + 1 == len(self._order.phases)
        with ExitStack() as stack:
            threshold = self._order.work.gates.near_duplicates if ends_round else None
            known = self._bench.known(stack, threshold, self._state.duplicates)
            passage = self._passage(known, closing)
            rows = stack.enter_context(self._bench.rows())
            made = passage.go_on(self._asked_items(rows), self._bench.answers(batch), at)
            if known is not None:
                self._state.duplicates = self._bench.saved(known)
        if closing is not None:
            retried = made.again > 0 and at.round < self._order.retries
            is_last = at.phase + 1 == len(self._order.phases)
            self._complete = is_last and not made.stopped and not retried
        return self._noted(made)

    def _passage(self, known: NearDuplicates | None, closing: str | None) -> Passage:
        order = self._order
        return Passage(
            work=order.work,
            phases=order.phases,
            retries=order.retries,
            writer=self._bench.writer,
            interrupted=self._chore.interrupted.is_set,
            max_line_bytes=self._tools.limits.line_bytes,
            settler=Settler(order.work.gates, order.template.head.best_of, known),
            closing=closing,
        )

    def _noted(self, made: Made) -> Made:
        """What the pass has found is the state that the next one begins with."""
        state = self._state
        if made.judged is not None:
            state.judged = [*state.judged, made.judged.key]
        state.asked = made.asked.key if made.asked is not None else None
        state.kept += made.kept
        state.regenerated += made.again if made.next is not None else 0
        for gate, count in made.refusals.items():
            state.refusals[gate] = state.refusals.get(gate, 0) + count
        if made.next is not None and made.asked is None:
            made.next = None  # all is good
        return made

    @property
    def _audiences(self) -> Audiences:
        return Audiences(self._state.audiences)

    def _asked_items(self, rows: Iterator[Numbered]) -> Iterator[Item]:
        records = read_records(self._tools.store.read(str(self._state.asked)))
        return items_of(rows, self._audiences, records)

    # --- ends -----------------------------------------------------------------------------------

    def _continue(self, made: Made, to: Position) -> None:
        if made.input is None:
            raise AssertionError("a batch without rows")
        new = NewProductionBatch(
            job_id=new_batch_id(),
            file_id=new_file_id(),
            endpoint=made.endpoint,
            round=to.round,
            phase=to.phase,
            rows=made.requests,
            stored=made.input,
        )
        progress = progress_at(to.round, to.phase / len(self._order.phases))
        chore = self._chore
        self._tools.ends.commit(
            chore,
            lambda connection: working.continue_production(
                connection,
                chore.session_id,
                chore.claim.held,
                new,
                found=self._state.as_json(),
                progress=progress,
                kept=self._state.kept,
            ),
        )
        self._tools.ringer.ring(UPKEEP)
        log.info(
            "production_batch_added",
            job=chore.claim.job_id,
            batch=new.job_id,
            round=to.round,
            phase=to.phase,
            rows=made.requests,
        )

    def _finish(self, at: Position, batch: ProducedBatch | None) -> None:
        order, claim, found = self._order, self._chore.claim, self._found
        kind = TableKind(order.spec.output_format)
        with self._bench.temporary() as (path, file):
            tally, labels = self._write(file, kind)
            file.flush()
            stored = self._bench.stored(path, FINAL, f"output.{kind.value}", MEDIA_TYPES[kind])
        summary = summary_of(
            tally,
            order.work.plan,
            self._state,
            rows=found.rows,
            tokens=(found.input_tokens, found.output_tokens),
        )
        if labels is not None:
            summary["labels"] = labels
        keep = order.spec.output_seconds
        end = ProductionEnd(
            output=NewFile(new_file_id(), f"{claim.job_id}.{kind.value}", stored),
            summary=summary,
            completed=summary["succeeded"],
            failed=tally.lines - summary["succeeded"],
            keep_seconds=DEFAULT_KEEP_SECONDS if keep is None else keep,
            cut_short=None if self._complete else _why(batch, at),
        )
        self._tools.ends.commit(
            self._chore,
            lambda connection: working.finish_production(
                connection, self._chore.session_id, claim.held, end
            ),
        )
        log.info("production_finished", job=claim.job_id, lines=tally.lines, kept=end.completed)

    def _write(
        self, file: BinaryIO, kind: TableKind
    ) -> tuple[Tally, dict[str, dict[str, int]] | None]:
        """The counts of its lines; with training data also those of its labels."""
        order, state, store = self._order, self._state, self._tools.store
        records = last_words([read_records(store.read(key)) for key in state.judged])
        with self._bench.rows() as rows:
            items = items_of(rows, self._audiences, records)
            task = augmenting(order.template.head)
            if task is not None:
                made = TrainingFile(file, task, self._chore.claim.job_id, order.spec.named)
                return self._told(items, made), made.labels or None
            with open_output(file, kind, order.template, state.columns, state.types) as output:
                return self._told(items, output), None

    def _told(self, items: Iterator[Item], output: OutputWriter) -> Tally:
        work, interrupted = self._order.work, self._chore.interrupted.is_set
        return write_lines(items, work.plan, output, interrupted, work.references)


def _why(batch: ProducedBatch | None, at: Position) -> tuple[str, str]:
    """What cut a production short that nobody has asked to stop."""
    if batch is None:
        return "batch_cancelled", "it was asked to stop"
    detail = f": {batch.error_message}" if batch.error_message else ""
    first = (batch.errors or [{}])[0].get("message")
    if first:
        detail += f" ({first})"
    return (
        f"batch_{batch.state}",
        f"{batch.job_id}, its batch of round {at.round} and phase {at.phase}, ended"
        f" {batch.state} with {batch.rows_completed} of {batch.rows} rows answered{detail}",
    )
