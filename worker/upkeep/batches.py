"""A batch's own stages: its input judged (and made first, of another batch's rows), its files put
together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from sqlalchemy import Engine

from shared.db.aliases import held_aliases
from shared.db.models import Model, list_models
from shared.db.session import autocommit
from shared.db.shards import slices_of
from shared.errors import BudgetExceeded, PressrunError, QuotaExceeded
from shared.ids import new_file_id
from shared.lifecycle import BadLine, working
from shared.lifecycle.working import Claim, NewFile
from shared.quotas import NOTHING
from shared.storage.base import Store, StoredObject
from worker.outputs import MEDIA_TYPE, attempt_prefix
from worker.upkeep.assembly import Assembler, Interrupted
from worker.upkeep.batch_estimates import estimate
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.retrying import copy_lines, interruptible, wanted_lines
from worker.upkeep.validation import BatchValidator, Verdict

log = structlog.get_logger()

DEFAULT_KEEP_SECONDS = 30 * 86_400
"""Result files live for 30 days unless ``output_expires_after`` says otherwise."""
OWN_INPUT = "input"
"""The folder, within the job's, of an input that was made of another batch's rows."""


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Of input files."""

    rows: int
    line_bytes: int
    reported: int


class BatchStages:
    """Runs the shards of stages ``validate`` and ``assemble``, on the threads of the chores."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        ends: ChoreEnds,
        *,
        ring: Callable[[Sequence[str]], None],
        limits: InputLimits,
        moderation_model: str | None = None,
    ) -> None:
        """``ring`` announces work in pools; ``moderation_model`` moderates for rows that name
        none."""
        self._moderation_model = moderation_model
        self._database = database
        self._store = store
        self._ends = ends
        self._ring = ring
        self._limits = limits

    def validate(self, chore: Chore) -> None:
        """Opens the batch's slices, rejects it, or says what it would take."""
        claim, spec = chore.claim, json.loads(chore.claim.spec)
        again = spec.get("retry")
        if again is not None and not json.loads(claim.detail).get("own_input"):
            own = self._make_input(chore, again)
            if own is None:
                return
            claim = replace(claim, input_key=own)
        models = self.models(claim.tenant_id)
        verdict = self._judge(chore, claim, models, measured=bool(spec.get("dry_run")))
        if verdict.bad_lines:
            self._reject(chore, verdict.errors, verdict.bad_lines)
        elif spec.get("dry_run"):
            self._estimate(chore, verdict, models)
        else:
            self._open(chore, verdict)

    def _judge(
        self, chore: Chore, claim: Claim, models: dict[str, Model], *, measured: bool
    ) -> Verdict:
        with autocommit(self._database) as connection:
            aliases = held_aliases(connection, claim.tenant_id)
        return BatchValidator(
            endpoint=claim.endpoint,
            models=models,
            aliases=aliases,
            max_rows=self._limits.rows,
            max_line_bytes=self._limits.line_bytes,
            max_reported=self._limits.reported,
            measured=measured,
            moderation_model=self._moderation_model,
        ).run(lambda: self._read(chore, claim.input_key))

    def _open(self, chore: Chore, verdict: Verdict) -> None:
        claim = chore.claim
        try:
            self._ends.commit(
                chore,
                lambda connection: working.finish_validation(
                    connection,
                    chore.session_id,
                    claim.held,
                    slices=verdict.slices,
                    models=verdict.models,
                    needed=verdict.tuned,
                    model=verdict.demand.model,
                ),
            )
        except (QuotaExceeded, BudgetExceeded) as error:
            self._refuse(chore, error)
            return
        log.info("batch_validated", job=claim.job_id, rows=verdict.rows, slices=len(verdict.slices))
        self._ring(verdict.pools)

    def _reject(self, chore: Chore, errors: Sequence[BadLine], bad_lines: int) -> None:
        self._ends.commit(
            chore,
            lambda connection: working.reject_batch(
                connection,
                chore.session_id,
                chore.claim.held,
                errors=errors,
                bad_lines=bad_lines,
            ),
        )

    def _refuse(self, chore: Chore, error: PressrunError) -> None:
        """Fails a batch that is good, and more than the tenant may have; nothing of it has run."""
        why = [BadLine(error.code, error.message, param=error.param)]
        self._ends.commit(
            chore,
            lambda connection: working.reject_batch(
                connection,
                chore.session_id,
                chore.claim.held,
                errors=why,
                bad_lines=0,
                refusal=error,
            ),
        )

    def _estimate(self, chore: Chore, verdict: Verdict, models: dict[str, Model]) -> None:
        claim = chore.claim
        with autocommit(self._database) as connection:
            found = estimate(
                connection,
                claim.tenant_id,
                verdict.demand,
                models,
                rows=verdict.rows,
                slices=len(verdict.slices),
                pools=verdict.pools,
                reserved=sum((part.reserved for part in verdict.slices), NOTHING),
            )
        self._ends.commit(
            chore,
            lambda connection: working.finish_estimate(
                connection,
                chore.session_id,
                claim.held,
                rows=verdict.rows,
                model=verdict.demand.model,
                estimate=found,
            ),
        )

    # --- another batch's rows -------------------------------------------------------------

    def _make_input(self, chore: Chore, again: dict[str, Any]) -> str | None:
        """Copies the rows that are to run again; returns the key of the new input, None when the
        batch has ended for want of any."""
        claim = chore.claim
        wanted = wanted_lines(self._read(chore, claim.validation_key), again["only"])
        if not len(wanted):
            nothing = BadLine("empty_file", f"{again['of']} has no rows that are {again['only']}")
            self._reject(chore, [nothing], 1)
            return None
        prefix = attempt_prefix(claim.tenant_id, claim.job_id, OWN_INPUT, claim.epoch)
        with self._store.writer(f"{prefix}input.jsonl", media_type=MEDIA_TYPE) as writer:
            source = self._read(chore, claim.input_key)
            copy_lines(source, wanted, writer, max_bytes=self._limits.line_bytes)
            stored = writer.finish()
        file = NewFile(new_file_id(), f"{claim.job_id}_input.jsonl", stored)
        self._ends.commit(
            chore,
            lambda connection: working.take_input(connection, chore.session_id, claim.held, file),
        )
        return stored.key

    def _read(self, chore: Chore, key: str | None) -> Iterator[bytes]:
        assert key is not None  # noqa: S101 - its file stays for as long as the batch is open
        return interruptible(self._store.read(key), chore.interrupted.is_set, Interrupted)

    def models(self, tenant_id: str) -> dict[str, Model]:
        """All that the tenant may name, by name."""
        with autocommit(self._database) as connection:
            return {model.id: model for model in list_models(connection, tenant_id)}

    # --- assembly -------------------------------------------------------------------------

    def assemble(self, chore: Chore) -> None:
        """Makes the batch's files and ends it."""
        claim = chore.claim
        assembler = Assembler(self._store, claim, chore.interrupted.is_set)
        with autocommit(self._database) as connection:
            slices = list(slices_of(connection, claim.job_id))
        output, errors = assembler.run(slices)
        keep = json.loads(claim.spec).get("output_expires_after_seconds", DEFAULT_KEEP_SECONDS)
        made = _new_file(claim, "output", output), _new_file(claim, "errors", errors)
        self._ends.commit(
            chore,
            lambda connection: (
                working.finish_assembly(
                    connection,
                    chore.session_id,
                    claim.held,
                    output=made[0],
                    errors=made[1],
                    rows_completed=assembler.rows_completed,
                    rows_failed=assembler.rows_failed,
                    error_counts=assembler.error_counts,
                    commonest_message=assembler.commonest_message,
                    keep_seconds=keep,
                )
                and working.keep_sizes(connection, claim.job_id, assembler.explained)
            ),
        )


def _new_file(claim: Claim, name: str, stored: StoredObject | None) -> NewFile | None:
    if stored is None:
        return None
    return NewFile(new_file_id(), f"{claim.job_id}_{name}.jsonl", stored)
