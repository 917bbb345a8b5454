"""Evaluations and optimisations of fake models, in the hall of trainings."""

from __future__ import annotations

import json
from typing import Any

from shared import lifecycle
from shared.db.models import sync_catalog
from shared.ids import new_evaluation_id, new_file_id, new_optimization_id
from shared.lifecycle import NewOptimization
from shared.models_catalog import ModelEntry
from shared.specs.model_jobs import EvaluationSpec, OptimizationSpec
from tests.integration.protocol import TENANT, WINDOW
from tests.integration.training_case import BASE, Hall, rows
from tests.plant import wait_until
from worker.recipes.fake import GO

OTHER = "fake-other"
INT8 = {"type": "quantize", "scheme": "int8"}


class ModelHall(Hall):
    """``commands`` are those of ``worker.recipes.fake_measuring``."""

    def offer(self, *names: str) -> None:
        with self.plant.engine.begin() as connection:
            entries = [ModelEntry(id=name, engine="fake") for name in (BASE, *names)]
            sync_catalog(connection, entries)

    def examples(self, commands: str = "", *, data: bytes | None = None) -> str:
        """An uploaded file's id."""
        file_id = new_file_id()
        key = f"t/{TENANT}/f/{file_id}"
        stored = self.store.put_bytes(key, data or rows(3, commands), media_type="text/plain")
        self.plant.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            " VALUES (:id, :tenant, 'examples.jsonl', 'evals', :bytes, :sha256, :key)",
            id=file_id,
            tenant=TENANT,
            bytes=stored.bytes,
            sha256=stored.sha256,
            key=key,
        )
        return file_id

    def evaluation(
        self, commands: str = "", *, file: str | None = None, detail: Any = None, **spec: Any
    ) -> str:
        job_id = new_evaluation_id()
        body = {"models": [BASE], "file": file or self.examples(commands), "metric": "loss"} | spec
        with self.plant.engine.begin() as connection:
            lifecycle.submit_evaluation(
                connection,
                job_id=job_id,
                tenant_id=TENANT,
                spec=EvaluationSpec.model_validate(body),
                window=WINDOW,
                detail=detail,
            )
        return job_id

    def optimization(
        self,
        commands: str = "",
        *,
        model: str = BASE,
        method: dict[str, Any] | None = None,
        held_out: str | None = None,
        **spec: Any,
    ) -> str:
        """``held_out`` is a fine-tuning whose data are to be used."""
        job_id = new_optimization_id()
        file = None if held_out else self.examples(commands)
        body = {"method": method or INT8, "evaluation_file": file} | spec
        detail: dict[str, Any] = {}
        if held_out:
            detail["held_out"] = {"job": held_out, "spec": self.plant.job(held_out).spec}
        new = NewOptimization(
            job_id=job_id,
            tenant_id=TENANT,
            model=model,
            spec=OptimizationSpec.model_validate(
                {name: value for name, value in body.items() if value is not None}
            ),
            file_id=file,
            detail=detail,
        )
        with self.plant.engine.begin() as connection:
            lifecycle.submit_optimization(connection, new, window=WINDOW)
        return job_id

    def wait_running(self, job_id: str) -> None:
        """Until its process has begun."""
        wait_until(
            lambda: "examples" in self.plant.job(job_id).detail.get("training", {}),
            60.0,
            lambda: json.dumps(self.plant.job(job_id).detail),
        )

    def let_go(self) -> None:
        """Whatever waits goes on."""
        for worker in self.workers:
            for folder in worker.folder.iterdir():
                (folder / GO).touch()
