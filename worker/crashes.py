"""What the death of an engine child means for the rows that were in it."""

from __future__ import annotations

from collections.abc import Sequence

from shared.lifecycle.working import ReleaseReason
from worker.engines.child import ChildDied, EngineChild
from worker.engines.protocol import DISK_FULL
from worker.execution import ShardRun
from worker.outputs import RowError
from worker.placement import Endings, Placement

LOAD_RETRY_SECONDS = 5.0
DISK_RETRY_SECONDS = 60.0
CRASHED = RowError("engine_crashed", "the engine crashed twice with this row alone in it")
HUNG = RowError("engine_hung", "the engine hung or crashed twice with this row alone in it")

Victims = Sequence[tuple[ShardRun, list[int]]]
"""Runs, each with the indexes of its rows that were in the engine."""


class Crashes:
    """Finds the row that brings an engine down, without blaming its neighbours.

    One crash in company is an accident: everything runs again. After two, rows are suspects and
    run alone; two crashes alone convict a row and acquit the others.
    """

    def __init__(self, placement: Placement, endings: Endings) -> None:
        self._placement = placement
        self._endings = endings

    def excused(self, victims: Victims, child: EngineChild, death: ChildDied) -> bool:
        """Gives the shards back, charged with a handled error, when no row can have done it: the
        model never got ready, or the machine's disk is full. Else False."""
        if death.fatal is not None and death.fatal.code == DISK_FULL:
            self._give_back(victims, DISK_FULL, "the worker's disk was full", DISK_RETRY_SECONDS)
        elif child.ready is None:
            code = death.fatal.code if death.fatal else "model_load_failed"
            # The log has the paths and the rest.
            message = "the model could not be loaded"
            self._give_back(victims, code, message, LOAD_RETRY_SECONDS)
        else:
            return False
        return True

    def _give_back(self, victims: Victims, code: str, message: str, delay_seconds: float) -> None:
        for run, _ in victims:
            self._endings.give_back(
                run,
                ReleaseReason.ERROR,
                code=code,
                message=message,
                delay_seconds=delay_seconds,
            )

    def in_company(self, run: ShardRun, indexes: list[int]) -> None:
        """The engine died with these rows and maybe others in it."""
        again = [index for index in indexes if not run.strike(index)]
        self._placement.suspect(run, sorted(set(indexes) - set(again)))
        self._placement.place(run, again)

    def alone(self, run: ShardRun, index: int, error: RowError) -> None:
        """The quarantine engine died with this row alone in it."""
        model_id = run.rows[index].model
        self._placement.tested(model_id)
        if not run.is_batch:
            self._endings.give_back(
                run, ReleaseReason.CRASHED, code=error.code, message=error.message
            )
            return
        if not run.solo_crash(index):
            self._placement.suspect(run, [index])
            return
        run.fail_row(index, error)
        self._endings.end_if_done(run)
        self._placement.acquit(model_id)
