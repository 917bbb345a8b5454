"""The first stage of a fine-tuning job: its data are judged; good ones open the training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine

from shared.db.files import FileRow, file_of_job
from shared.db.models import get_model
from shared.db.session import autocommit
from shared.doorbell import Ringer
from shared.errors import BudgetExceeded, PressrunError, QuotaExceeded
from shared.ids import new_file_id
from shared.lifecycle import working
from shared.lifecycle.working import NewFile, NewSweep
from shared.pools import TRAIN, UPKEEP
from shared.specs.fine_tuning import FineTuningSpec
from shared.specs.sweeps import Sweep
from shared.storage.base import Store
from worker.outputs import attempt_prefix
from worker.tuning.data.card import FILENAME, MEDIA_TYPE, dataset_card
from worker.tuning.data.estimate import PRICE, estimate
from worker.tuning.data.examine import examine
from worker.tuning.data.examined import Examined
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.source import Source
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.sweeps_estimate import estimate_sweep

log = structlog.get_logger()

PART = "d"
"""Of a job's folder in the store: what is said of its data."""


class TuningData:
    """Runs the ``validate`` shards of fine-tuning jobs, on the threads of the chores."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        ends: ChoreEnds,
        ringer: Ringer,
        *,
        limits: DataLimits,
        scratch: Path | None,
    ) -> None:
        self._database = database
        self._store = store
        self._ends = ends
        self._ringer = ringer
        self._limits = limits
        self._scratch = scratch

    def run(self, chore: Chore) -> None:
        """Raises Interrupted, and for the chore's ``judge`` whatever else goes wrong."""
        claim = chore.claim
        spec = FineTuningSpec.model_validate_json(claim.spec)
        files = self._files(claim.tenant_id, spec)
        missing = [param for param, file in files.items() if file is None]
        if missing:
            self._fail(chore, missing[0])
            return
        sources = [self._source(file) for file in files.values() if file is not None]
        examined = examine(
            spec.recipe,
            spec,
            sources[0],
            sources[1] if len(sources) > 1 else None,
            chore.interrupted.is_set,
            limits=self._limits,
            scratch=self._scratch,
        )
        log.info(
            "tuning_data_examined",
            job=claim.job_id,
            recipe=spec.recipe,
            examples=examined.examples,
            bad_lines=examined.bad_lines,
        )
        if examined.bad_lines:
            self._reject(chore, examined)
        else:
            self._accept(chore, spec, examined, [source.filename for source in sources])

    def _files(self, tenant_id: str, spec: FineTuningSpec) -> dict[str, FileRow | None]:
        """By the field that names them, the training file first; None for one that is gone."""
        named = {"training_file": spec.training_file, "validation_file": spec.validation_file}
        with autocommit(self._database) as connection:
            return {
                param: file_of_job(connection, tenant_id, file_id)
                for param, file_id in named.items()
                if file_id is not None
            }

    def _source(self, file: FileRow) -> Source:
        def chunks() -> Iterator[bytes]:
            return self._store.read(file.storage_key)

        return Source(file.filename, file.bytes, chunks)

    def _fail(self, chore: Chore, param: str) -> None:
        self._ends.commit(
            chore,
            lambda connection: working.fail_training(
                connection,
                chore.session_id,
                chore.claim.held,
                code="not_found",
                message=f"The {param} is gone.",
                param=param,
            ),
        )

    def _reject(self, chore: Chore, examined: Examined) -> None:
        self._ends.commit(
            chore,
            lambda connection: working.reject_training(
                connection,
                chore.session_id,
                chore.claim.held,
                errors=examined.errors,
                bad_lines=examined.bad_lines,
            ),
        )

    def _accept(
        self, chore: Chore, spec: FineTuningSpec, examined: Examined, filenames: list[str]
    ) -> None:
        numbers = self._estimate(chore.claim.tenant_id, spec, examined)
        card = self._store_card(chore, examined, filenames, numbers)
        held, found = chore.claim.held, examined.found() | {"estimate": numbers}

        def commit(connection: Connection) -> bool:
            for warning in examined.warnings:
                working.add_note(connection, chore.session_id, held, warning, "warn")
            if spec.dry_run:
                return working.finish_dry_run(
                    connection, chore.session_id, held, estimate=found, card=card
                )
            sweep = None if spec.sweep is None else _searched(spec.sweep)
            return working.open_training(
                connection, chore.session_id, held, found=found, card=card, sweep=sweep
            )

        try:
            self._ends.commit(chore, commit)
        except (QuotaExceeded, BudgetExceeded) as error:
            self._refuse(chore, error)
            return
        if not spec.dry_run:
            self._ringer.ring(TRAIN if spec.sweep is None else UPKEEP)

    def _refuse(self, chore: Chore, error: PressrunError) -> None:
        """Fails a job whose data are good, and that is more than the tenant may have."""
        self._ends.commit(
            chore,
            lambda connection: working.fail_training(
                connection,
                chore.session_id,
                chore.claim.held,
                code=error.code,
                message=error.message,
                param=error.param,
            ),
        )

    def _estimate(self, tenant_id: str, spec: FineTuningSpec, examined: Examined) -> dict[str, Any]:
        with autocommit(self._database) as connection:
            model = get_model(connection, tenant_id, spec.model)
        settings = {} if model is None else model.settings
        price = {} if model is None else model.detail.get("price") or {}
        if price.get("training_per_million") is not None:
            settings = settings | {PRICE: price["training_per_million"]}
        parameters = settings.get("parameters")
        known = isinstance(parameters, int) and not isinstance(parameters, bool) and parameters > 0
        size = parameters if known else None
        if spec.sweep is not None:
            return estimate_sweep(spec, spec.sweep, examined, size, settings)
        return estimate(spec, examined, size, settings)

    def _store_card(
        self,
        chore: Chore,
        examined: Examined,
        filenames: list[str],
        numbers: dict[str, Any],
    ) -> NewFile:
        claim = chore.claim
        card = dataset_card(examined, job_id=claim.job_id, filenames=filenames, estimate=numbers)
        key = attempt_prefix(claim.tenant_id, claim.job_id, PART, claim.epoch) + FILENAME
        stored = self._store.put_bytes(key, card.encode(), media_type=MEDIA_TYPE)
        return NewFile(new_file_id(), FILENAME, stored)


def _searched(sweep: Sweep) -> NewSweep:
    return NewSweep(
        sweep.trials, sweep.metric, minimize=sweep.direction == "minimize", pruning=sweep.pruning
    )
