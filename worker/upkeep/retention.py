"""Letting go of what tenants' policies say: in portions, the oldest first, tenants taking turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, Engine

from shared.db import archive, old_outputs, policies
from shared.db.file_retention import named_inputs
from shared.db.policies import DueTenant
from shared.db.session import autocommit
from shared.errors import PressrunError
from shared.lifecycle import deletion_by_age
from shared.lifecycle import deletion_rows as purging
from shared.retention import Days
from shared.storage.base import Store
from worker.outputs import job_prefix
from worker.upkeep.cleaner import MOST_REFUSALS

log = structlog.get_logger()

HIDDEN_SECONDS = 60.0
"""A job that was archived goes for good so much later: whoever read it at that moment is done."""
ROUNDS = 20
"""Portions of one kind and tenant in one run."""
HIDDEN_ROUNDS = 5
"""Portions of hidden jobs in one run: each is many calls of the store."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What one step did."""

    gone: int
    more: bool
    """Whether another step may find as much again."""


Step = Callable[[DueTenant], Portion]


class Retention:
    """One run over everything that is older than its tenant's policy allows. Any number of
    processes may run it, at any time; what the store refuses is left for the next run."""

    def __init__(self, database: Engine, store: Store, defaults: Days) -> None:
        """``defaults``: what holds for tenants that have nothing else, in days."""
        self._database = database
        self._store = store
        self._defaults = defaults
        self._steps: dict[str, tuple[Step, ...]] = {
            "input_files": (self._end_input_files,),
            "outputs": (self._end_artifacts,),
            "events": (self._forget_events, self._forget_deliveries),
            "jobs": (self._retire_calls, self._hide_jobs),
            "usage": (self._forget_usage,),
            "archive": (self._forget_archived,),
        }

    def run(self) -> dict[str, int]:
        """How many of what went. Raises SQLAlchemyError."""
        gone: dict[str, int] = {}
        for kind, steps in self._steps.items():
            with autocommit(self._database) as connection:
                due = policies.due_tenants(connection, kind, self._defaults.get(kind))
            for step in steps:
                gone[kind] = gone.get(kind, 0) + self._each(due, step)
        with autocommit(self._database) as connection:
            due = policies.due_output_files(connection, self._defaults.get("outputs"))
        gone["outputs"] += self._each(due, self._end_output_files)
        gone["hidden"] = self._remove_hidden()
        with self._database.begin() as connection:
            purging.purge_old_files(connection, grace_seconds=HIDDEN_SECONDS)
        found = {kind: number for kind, number in gone.items() if number}
        if found:
            log.info("retention_applied", **found)
        return found

    def _each(self, due: list[DueTenant], step: Step) -> int:
        """Tenants take turns; one whose store refuses waits for the next run."""
        gone = 0
        for _ in range(ROUNDS):
            going_on = []
            for tenant in due:
                try:
                    portion = step(tenant)
                except PressrunError as error:
                    log.warning("cleaning_postponed", code=error.code)
                    continue
                gone += portion.gone
                if portion.more:
                    going_on.append(tenant)
            due = going_on
        return gone

    # --- files and artifacts ----------------------------------------------------------------

    def _end_input_files(self, tenant: DueTenant) -> Portion:
        return self._end_files("input_files", tenant)

    def _end_output_files(self, tenant: DueTenant) -> Portion:
        return self._end_files("outputs", tenant)

    def _end_files(self, what: str, tenant: DueTenant) -> Portion:
        with self._database.begin() as connection:
            ended = old_outputs.end_files(connection, what, tenant.tenant_id, tenant.days)
        return Portion(ended, ended == old_outputs.AT_ONCE)

    def _end_artifacts(self, tenant: DueTenant) -> Portion:
        with autocommit(self._database) as connection:
            ended = old_outputs.ended_jobs(connection, "outputs", *tenant)
            named = named_inputs(connection, tenant.tenant_id) if ended else set()
        jobs, gone = [job.id for job in ended], 0
        while jobs:
            with autocommit(self._database) as connection:
                found = old_outputs.old_artifacts(connection, tenant.tenant_id, jobs, named=named)
            if not found:
                break
            self._store.delete_keys([artifact.storage_key for artifact in found])
            ids = [artifact.id for artifact in found]
            with self._database.begin() as connection:
                gone += old_outputs.forget_artifacts(connection, tenant.tenant_id, ids)
        return Portion(gone, self._mark("outputs", tenant, ended))

    def _mark(self, what: str, tenant: DueTenant, ended: list[old_outputs.EndedJob]) -> bool:
        """Goes beyond these jobs, unless something of theirs is held; whether there are more."""
        if not ended:
            return False
        with self._database.begin() as connection:
            jobs = [job.id for job in ended]
            if what == "outputs" and old_outputs.are_artifacts_left(connection, jobs):
                return False
            policies.mark(connection, tenant.tenant_id, what, ended[-1].ended_at)
        return len(ended) >= old_outputs.JOBS_AT_ONCE

    # --- rows -------------------------------------------------------------------------------

    def _forget_events(self, tenant: DueTenant) -> Portion:
        with autocommit(self._database) as connection:
            ended = old_outputs.ended_jobs(connection, "events", *tenant)
        jobs, gone = [job.id for job in ended], 0
        while jobs:
            with self._database.begin() as connection:
                portion = old_outputs.forget_events(connection, tenant.tenant_id, jobs)
            gone += portion
            if portion < old_outputs.AT_ONCE:
                break
        return Portion(gone, self._mark("events", tenant, ended))

    def _forget_deliveries(self, tenant: DueTenant) -> Portion:
        return self._rows(old_outputs.forget_deliveries, tenant, old_outputs.AT_ONCE)

    def _forget_usage(self, tenant: DueTenant) -> Portion:
        return self._rows(old_outputs.forget_usage, tenant, old_outputs.AT_ONCE)

    def _forget_archived(self, tenant: DueTenant) -> Portion:
        return self._rows(archive.forget_archived, tenant, old_outputs.AT_ONCE)

    def _retire_calls(self, tenant: DueTenant) -> Portion:
        return self._rows(deletion_by_age.retire_jobs, tenant, deletion_by_age.AT_ONCE)

    def _rows(
        self, remove: Callable[[Connection, str, int], int], tenant: DueTenant, full: int
    ) -> Portion:
        with self._database.begin() as connection:
            gone = remove(connection, tenant.tenant_id, tenant.days)
        return Portion(gone, gone == full)

    def _hide_jobs(self, tenant: DueTenant) -> Portion:
        with self._database.begin() as connection:
            named = named_inputs(connection, tenant.tenant_id)
            hidden = deletion_by_age.hide_jobs(connection, *tenant, named=named)
        return Portion(hidden, hidden == deletion_by_age.AT_ONCE)

    def _remove_hidden(self) -> int:
        """Files and rows of jobs that are gone for their tenants and that no deletion is about."""
        gone = 0
        for _ in range(HIDDEN_ROUNDS):
            with autocommit(self._database) as connection:
                hidden = archive.hidden_jobs(connection, grace_seconds=HIDDEN_SECONDS)
            emptied = self._empty(hidden)
            done = not emptied
            while not done:
                with self._database.begin() as connection:
                    _, done = purging.purge_jobs(connection, emptied)
            gone += len(emptied)
            if len(emptied) < archive.AT_ONCE:
                break
        return gone

    def _empty(self, hidden: Sequence[archive.HiddenJob]) -> list[str]:
        """Removes the jobs' objects but for files that their tenants still have; returns those
        jobs whose objects the store let go of."""
        of_tenant: dict[str, list[str]] = {}
        for job in hidden:
            of_tenant.setdefault(job.tenant_id, []).append(job.job_id)
        keep: list[str] = []
        for tenant_id, jobs in of_tenant.items():
            with autocommit(self._database) as connection:
                keep += archive.living_files(connection, tenant_id, jobs)
        emptied: list[str] = []
        refusals = 0
        for job in hidden:
            prefix = job_prefix(job.tenant_id, job.job_id)
            own = [key for key in keep if key.startswith(prefix)]
            try:
                self._store.delete_prefix(prefix, keep=own)
            except PressrunError as error:
                log.warning("cleaning_postponed", code=error.code)
                refusals += 1
                if refusals == MOST_REFUSALS:  # it is the store, not the object
                    break
                continue
            emptied.append(job.job_id)
        return emptied
