"""A plant with models of a tenant's own and aliases that they hold."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row

from shared import lifecycle
from shared.db.aliases import AliasMove, get_alias, list_moves
from shared.ids import new_evaluation_id
from shared.lifecycle import aliases as alias_verbs
from shared.lifecycle import working
from shared.lifecycle.aliases import Expected, Gate
from shared.lifecycle.working import EvaluationEnd, ModelMeasured
from shared.specs.model_jobs import EvaluationSpec
from tests.integration.protocol import CHAT, TENANT, WINDOW
from tests.integration.tuning_case import TuningPlant

NAME = "news-writer@production"
FIRST, SECOND, THIRD = "ft:writer:t:a:1", "ft:writer:t:b:2", "ft:writer:t:c:3"


class AliasPlant(TuningPlant):
    """Every call is its own transaction."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        for name in (FIRST, SECOND, THIRD):
            self.model(name)

    def model(self, name: str, tenant: str | None = TENANT, endpoints: str = CHAT) -> str:
        self.sql(
            "INSERT INTO models (id, tenant_id, pool, engine, source, endpoints)"
            " VALUES (:id, :tenant, 'text', 'fake', '', ARRAY[:endpoints])",
            id=name,
            tenant=tenant,
            endpoints=endpoints,
        )
        return name

    def delete_model(self, name: str) -> None:
        self.sql("UPDATE models SET deleted_at = now() WHERE id = :id", id=name)

    def create(self, model: str | None = None, name: str = NAME, tenant: str = TENANT) -> None:
        with self.engine.begin() as connection:
            alias_verbs.create_alias(connection, tenant_id=tenant, name=name, model=model)

    def move(self, model: str, name: str = NAME, expected: Expected | None = None) -> bool:
        with self.engine.begin() as connection:
            return alias_verbs.move_alias(
                connection, tenant_id=TENANT, name=name, model=model, expected=expected
            )

    def roll_back(self, name: str = NAME, expected: Expected | None = None) -> str | None:
        """Gives the holder after it."""
        with self.engine.begin() as connection:
            alias_verbs.rollback_alias(connection, tenant_id=TENANT, name=name, expected=expected)
        return self.holder(name)

    def holder(self, name: str = NAME) -> str | None:
        with self.connection() as connection:
            row = get_alias(connection, TENANT, name)
        assert row is not None
        return row.model

    def history(self, name: str = NAME) -> list[AliasMove]:
        """Oldest first."""
        with self.connection() as connection:
            row = get_alias(connection, TENANT, name)
            assert row is not None
            return list_moves(connection, TENANT, row.id, before=None, limit=100)[::-1]

    # --- gates ----------------------------------------------------------------------------

    def gate(
        self, candidate: str, *, metric: str = "loss", min_improvement: float = 0.0
    ) -> tuple[str, Gate]:
        """An evaluation that waits for a worker, and the gate that waits for it."""
        job_id, file_id = new_evaluation_id(), self.file()
        with self.engine.begin() as connection:
            gate = alias_verbs.begin_gate(
                connection,
                tenant_id=TENANT,
                name=NAME,
                candidate=candidate,
                job_id=job_id,
                metric=metric,
                min_improvement=min_improvement,
            )
            lifecycle.submit_evaluation(
                connection,
                job_id=job_id,
                tenant_id=TENANT,
                spec=EvaluationSpec(models=gate.models, file=file_id, metric=metric),
                window=WINDOW,
                detail={"gate": gate.as_detail()},
            )
        return job_id, gate

    def measure(self, *values: float | None, metric: str = "loss") -> str:
        """A worker evaluates the next job: ``values`` are those of its models, in their order.
        Gives the job's id."""
        claim = self.claim_one("trainer", pools=["train"], max_shards=1)
        measured = [
            ModelMeasured(model=model, values={metric: value}, examples=3)
            for model, value in zip(json.loads(claim.spec)["models"], values, strict=True)
        ]
        with self.engine.begin() as connection:
            assert working.finish_evaluation(
                connection, "trainer", claim.held, EvaluationEnd(measured=measured)
            )
        return claim.job_id

    def decided(self, job_id: str) -> dict[str, Any]:
        """The gate as the evaluation's job tells of it."""
        job: Row[Any] = self.job(job_id)
        gate: dict[str, Any] = job.detail["gate"]
        return gate
