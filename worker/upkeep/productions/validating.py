"""Shards of stage ``validate`` of productions: template and data are judged before anything is
asked of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import structlog
from sqlalchemy import Engine

from shared.db.models import list_models
from shared.db.session import autocommit
from shared.doorbell import Ringer
from shared.errors import InvalidRequest
from shared.lifecycle import BadLine, working
from shared.lifecycle.working import ProductionSize
from shared.pools import UPKEEP
from shared.productions.tables import TableKind, TableRefused, TableRow
from shared.productions.template import Template, parse_template
from shared.specs.productions import ProductionSpec
from shared.storage.base import Store
from worker.outputs import attempt_prefix
from worker.tuning.data.source import Source
from worker.upkeep.batch_estimates import estimate
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.productions.checking import Checker, Found, Limits
from worker.upkeep.productions.data import open_table
from worker.upkeep.productions.opening import Order, State, read_order, source_of, table_of
from worker.upkeep.productions.records import MEDIA_TYPE
from worker.upkeep.productions.reference_files import TenantFiles, read_references
from worker.upkeep.productions.references import NONE, References, store_references
from worker.upkeep.productions.running import rows_besides, runner_of
from worker.upkeep.productions.workbench import WORK
from worker.upkeep.validation import BatchValidator

log = structlog.get_logger()

MOST_AUDIENCES = 100
CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Validation:
    """Runs the first shard of productions, on the threads of the chores."""

    database: Engine
    store: Store
    ends: ChoreEnds
    ringer: Ringer
    limits: Limits
    scratch: Path | None

    def run(self, chore: Chore) -> None:
        """Raises Interrupted, and for the chore's ``judge`` whatever else goes wrong."""
        claim = chore.claim
        spec = ProductionSpec.model_validate_json(claim.spec)
        try:
            template = parse_template(spec.template)
            audiences = self._audiences(chore, template, spec.audience_format)
            references = self._references(chore, template, spec)
        except InvalidRequest as wrong:
            self._reject(chore, [BadLine(wrong.code, wrong.message, None, wrong.param)], 1)
            return
        except TableRefused as refused:
            self._reject(chore, [refused.bad], 1)
            return
        order = read_order(claim, audiences, references)
        with tempfile.TemporaryFile(prefix="rows-", dir=self.scratch) as rows:
            found = self._check(chore, order, audiences, rows if spec.dry_run else None)
            if found.errors:
                self._reject(chore, found.errors, found.bad_rows)
            elif spec.dry_run:
                self._estimate(chore, order, found, rows)
            else:
                self._open(chore, order, found, audiences)

    def _check(
        self, chore: Chore, order: Order, audiences: list[dict[str, Any]], rows: IO[bytes] | None
    ) -> Found:
        work = order.work
        others = rows_besides(work, order.phases)
        checker = Checker(
            order.template,
            work.plan,
            runner_of(work, order.phases[0], 0),
            replace(self.limits, candidates=max(self.limits.candidates - others, 0)),
            interrupted=chore.interrupted.is_set,
            see=None if rows is None else _writing(rows),
        )
        claim = chore.claim
        source = self._source(chore, claim.input_key, order.spec.data_format)
        try:
            table = table_of(order, source, self.scratch)
        except TableRefused as refused:
            return Found(bad_rows=1, errors=[refused.bad])
        try:
            return checker.run(table, audiences)
        finally:  # a look that ends early leaves nobody who reads on
            close = getattr(table.rows, "close", None)
            if close is not None:
                close()

    def _source(self, chore: Chore, key: str | None, kind: str) -> Source:
        return source_of(self.store, key, kind).interruptible(chore.interrupted.is_set)

    def _audiences(
        self, chore: Chore, template: Template, audience_format: str | None
    ) -> list[dict[str, Any]]:
        """Raises TableRefused or InvalidRequest."""
        listed: Any = template.head.audiences
        if listed is None or isinstance(listed, list):
            return listed or []
        claim = chore.claim
        if audience_format is None:
            raise AssertionError("a file of audiences without its format")
        source = self._source(chore, claim.validation_key, audience_format)
        kind = TableKind(audience_format)
        found: list[dict[str, Any]] = []
        for row in open_table(source, kind=kind, scratch=self.scratch).rows:
            found.append(_audience(row, template, len(found)))
            if len(found) > MOST_AUDIENCES:
                message = f"more than {MOST_AUDIENCES} audiences"
                raise InvalidRequest(message, param="template.audiences.file")
        if not found:
            raise InvalidRequest("the file has no audiences", param="template.audiences.file")
        return found

    def _references(self, chore: Chore, template: Template, spec: ProductionSpec) -> References:
        """Raises InvalidRequest."""
        if spec.examples_file is None and not spec.documents:
            return NONE
        files = TenantFiles(self.database, self.store, chore, self.scratch)
        return read_references(template, spec, files)

    # --- ends -----------------------------------------------------------------------------------

    def _reject(self, chore: Chore, errors: list[BadLine], bad_rows: int) -> None:
        self.ends.commit(
            chore,
            lambda connection: working.reject_production(
                connection, chore.session_id, chore.claim.held, errors=errors, bad_rows=bad_rows
            ),
        )
        log.info("production_rejected", job=chore.claim.job_id, bad_rows=bad_rows)

    def _open(
        self, chore: Chore, order: Order, found: Found, audiences: list[dict[str, Any]]
    ) -> None:
        state = State(
            columns=found.columns,
            types=found.types,
            audiences=audiences,
            references=self._kept(chore, order.work.references),
        )
        size = _size(order, found)
        self.ends.commit(
            chore,
            lambda connection: working.open_production(
                connection, chore.session_id, chore.claim.held, size, state.as_json()
            ),
        )
        self.ringer.ring(UPKEEP)
        log.info("production_validated", job=chore.claim.job_id, rows=size.rows, lines=size.lines)

    def _kept(self, chore: Chore, references: References) -> str | None:
        """The key of what later passes look things up in."""
        if references is NONE:
            return None
        claim = chore.claim
        prefix = attempt_prefix(claim.tenant_id, claim.job_id, WORK, claim.epoch)
        with self.store.writer(f"{prefix}references.jsonl", media_type=MEDIA_TYPE) as writer:
            store_references(references, writer)
            return writer.finish().key

    def _estimate(self, chore: Chore, order: Order, found: Found, rows: IO[bytes]) -> None:
        """Of what is known before anything is generated: the first calls of every candidate."""
        claim = chore.claim
        with autocommit(self.database) as connection:
            models = {model.id: model for model in list_models(connection, claim.tenant_id)}
        verdict = BatchValidator(
            endpoint=order.phases[0].endpoint,
            models=models,
            max_rows=self.limits.candidates,
            max_line_bytes=self.limits.line_bytes,
            max_reported=self.limits.reported,
            measured=True,
        ).run(lambda: _chunks(rows))
        if verdict.bad_lines:
            self._reject(chore, verdict.errors, verdict.bad_lines)
            return
        with autocommit(self.database) as connection:
            told = estimate(
                connection,
                claim.tenant_id,
                verdict.demand,
                models,
                rows=verdict.rows,
                slices=len(verdict.slices),
                pools=verdict.pools,
            )
        if len(order.phases) > 1 or order.retries:
            told["basis"] = [
                *told["basis"],
                f"the first of {len(order.phases)} phase(s) of the first round; no retries",
            ]
        size = _size(order, found)
        self.ends.commit(
            chore,
            lambda connection: working.finish_production_estimate(
                connection, chore.session_id, claim.held, size, told
            ),
        )


def _size(order: Order, found: Found) -> ProductionSize:
    plan = order.work.plan
    return ProductionSize(
        rows=found.rows,
        lines=found.rows * plan.audiences * plan.kept,
        phases=len(order.phases),
    )


def _audience(row: TableRow | BadLine, template: Template, at: int) -> dict[str, Any]:
    if isinstance(row, BadLine):
        raise TableRefused(row)
    template.check_audience(row.values, f"audiences[{at}]")
    return row.values


def _writing(file: IO[bytes]) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        file.write(data)

    return write


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK):
        yield chunk
