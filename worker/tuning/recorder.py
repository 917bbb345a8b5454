"""What a training has said, on its way to Postgres: gathered, and written about once a second."""

from __future__ import annotations

import math
import time
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.db.session import is_outage
from shared.lifecycle import working
from shared.lifecycle.working import Held, TrainingStep
from worker.tuning.messages import Metrics, Note, Progressed, Started

log = structlog.get_logger()

WRITE_SECONDS = 1.0
MOST_WAITING = 2_000
"""Steps and notes in memory while the database is away; the rest wait in the training's file."""
STEPS_AT_ONCE = 1_000
LONGEST_NOTE = 2_000


class Recorder:
    """Used by the thread of one training. Nothing is lost when the database is away: it is kept
    and offered again; once ``full``, its owner reads no more."""

    def __init__(
        self, database: Engine, held: Held, session_id: str, *, seconds_before: float = 0.0
    ) -> None:
        """``seconds_before`` is what earlier attempts took."""
        self._began = time.monotonic() - seconds_before
        self._database = database
        self._held = held
        self._session_id = session_id
        self._steps: dict[int, TrainingStep] = {}
        self._notes: list[tuple[str, str]] = []
        self._detail: dict[str, Any] = {}
        self._next_write = 0.0
        self.total_steps = 0
        self.step = 0
        self.recorded_step = 0
        """All that was said up to this step is written; other threads may read it."""

    @property
    def full(self) -> bool:
        return len(self._steps) + len(self._notes) >= MOST_WAITING

    @property
    def empty(self) -> bool:
        return not (self._steps or self._notes or self._detail)

    @property
    def seconds(self) -> float:
        """What the training has taken, over all attempts."""
        return round(time.monotonic() - self._began, 3)

    def started(self, said: Started) -> None:
        self.total_steps, self.step = said.steps, said.step
        self._detail |= {
            **said.detail,
            "steps": said.steps,
            "resumed_from": said.step,
            "hyperparameters": said.hyperparameters,
        }

    def metrics(self, said: Metrics) -> None:
        """Numbers of one step come together, in however many messages."""
        values = {name: value for name, value in said.values.items() if math.isfinite(value)}
        before = self._steps.get(said.step)
        if before is not None:
            values = {**before.values, **values}
        epoch = max(said.epoch, before.epoch if before else 0.0)
        self._steps[said.step] = TrainingStep(said.step, epoch, values)
        self.step = max(self.step, said.step)
        self._detail |= {"step": self.step}
        if (eta := values.get("eta_seconds")) is not None:
            self._detail |= {"eta_seconds": eta}

    def progressed(self, said: Progressed) -> None:
        self.step = max(self.step, said.step)
        self._detail |= {"step": self.step}

    def saved(self, step: int) -> None:
        """A checkpoint was taken: what it goes on from must be written, or steps would be missing
        once an attempt goes on from there."""
        self.step = max(self.step, step)

    def note(self, said: Note) -> None:
        self._notes.append((said.text[:LONGEST_NOTE], said.level))

    def write_if_due(self) -> None:
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> bool:
        """Writes all there is; False when the database is away, and it is kept."""
        self._next_write = time.monotonic() + WRITE_SECONDS
        if self.empty:
            self.recorded_step = self.step
            return True
        steps = list(self._steps.values())
        self._detail["seconds"] = self.seconds
        try:
            with self._database.begin() as connection:
                for start in range(0, max(1, len(steps)), STEPS_AT_ONCE):
                    working.report_training(
                        connection,
                        self._session_id,
                        self._held,
                        metrics=steps[start : start + STEPS_AT_ONCE],
                        progress=self._progress(),
                        detail=self._detail,
                    )
                for text, level in self._notes:
                    working.add_note(connection, self._session_id, self._held, text, level)
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            log.warning("training_report_postponed", error=type(error).__name__)
            return False
        self._steps.clear()
        self._notes.clear()
        self._detail.clear()
        self.recorded_step = self.step
        return True

    def _progress(self) -> float | None:
        if not self.total_steps:
            return None
        return min(1.0, self.step / self.total_steps)
