"""How evaluations and optimisations end: numbers committed, a smaller model offered or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from shared.lifecycle import BadLine, working
from shared.lifecycle.working import EvaluationEnd, ModelMeasured, OptimizationEnd
from shared.specs.model_jobs import METRICS
from worker.tuning.ending import Ending
from worker.tuning.messages import Finished
from worker.tuning.model_names import optimized_model


class ModelJobEnding(Ending):
    """What both have in common: failing."""

    def failure(
        self,
        connection: Connection,
        code: str,
        message: str,
        param: str | None,
        errors: Sequence[BadLine],
    ) -> bool:
        return working.fail_model_job(
            connection,
            self._order.session_id,
            self._order.claim.held,
            code=code,
            message=message,
            param=param,
            errors=errors,
        )


class EvaluationEnding(ModelJobEnding):
    def success(self, said: Finished) -> Callable[[Connection], bool]:
        plan = self._training.prepared.plan
        told = {item["model"]: item for item in said.metrics["models"]}
        known = METRICS[plan.measured_as]
        end = EvaluationEnd(
            measured=[
                ModelMeasured(
                    model=subject.name,
                    values={
                        name: value
                        for name, value in told[subject.name]["values"].items()
                        if name in known
                    },
                    examples=told[subject.name]["examples"],
                    tokens=told[subject.name]["tokens"],
                    seconds=told[subject.name]["seconds"],
                )
                for subject in plan.subjects
            ],
            seconds=self._training.seconds,
        )
        claim, session_id = self._order.claim, self._order.session_id
        return lambda connection: working.finish_evaluation(connection, session_id, claim.held, end)


class OptimizationEnding(ModelJobEnding):
    def success(self, said: Finished) -> Callable[[Connection], bool]:
        refused: str | None = said.metrics["refused"]
        table: dict[str, Any] = said.metrics["table"]
        prepared, claim = self._training.prepared, self._order.claim
        model = None
        if refused is None:
            model = optimized_model(
                prepared.plan,
                prepared.base,
                job_id=claim.job_id,
                files=self._store_model(),
                table=table,
                data=prepared.data.said,
            )
        end = OptimizationEnd(
            table=table | {"data": dict(prepared.data.said), "seconds": self._training.seconds},
            model=model,
            files=self._store_reports(said),
            message=refused or "",
            tokens=said.trained_tokens,
        )
        session_id = self._order.session_id
        return lambda connection: working.finish_optimization(
            connection, session_id, claim.held, end
        )
