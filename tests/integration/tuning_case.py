"""A plant with fine-tuning jobs, and short names for what their workers do."""

from __future__ import annotations

import json
from typing import Any

from shared import lifecycle
from shared.db.models import ModelFile
from shared.ids import new_file_id, new_id
from shared.lifecycle import BadLine, working
from shared.lifecycle.working import (
    Claim,
    Held,
    NewCheckpoint,
    NewFile,
    NewModel,
    TrainingEnd,
    TrainingStep,
)
from shared.storage.base import StoredObject
from tests.integration.protocol import TENANT, WINDOW, Plant

SPEC = {"model": "writer", "training_file": "file-x"}
FOUND = {"counts": {"train": 20, "validation": 2}, "labels": ["a", "b"]}


class TuningPlant(Plant):
    """Every call is its own transaction."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.session("up", pools=["upkeep"])
        self.session("trainer", pools=["train"])

    def file(self, tenant: str = TENANT, name: str = "rows.jsonl") -> str:
        file_id = new_file_id()
        self.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            " VALUES (:id, :tenant, :name, 'fine-tune', 10, 'sha', :key)",
            id=file_id,
            tenant=tenant,
            name=name,
            key=f"t/{tenant}/f/{file_id}",
        )
        return file_id

    def fine_tune(self, tenant: str = TENANT, *, validation: bool = False, **spec: Any) -> str:
        job_id = new_id("ftjob-")
        with self.engine.begin() as connection:
            lifecycle.submit_fine_tune(
                connection,
                job_id=job_id,
                tenant_id=tenant,
                model=spec.get("model", "writer"),
                training_file_id=self.file(tenant),
                validation_file_id=self.file(tenant) if validation else None,
                spec=json.dumps(SPEC | spec),
                metadata=None,
                window=WINDOW,
            )
        return job_id

    def open_training(
        self, held: Held, session: str = "up", found: dict[str, Any] | None = None
    ) -> bool:
        with self.engine.begin() as connection:
            return working.open_training(connection, session, held, found=found or FOUND, card=None)

    def reject(self, held: Held, errors: list[BadLine], session: str = "up") -> bool:
        with self.engine.begin() as connection:
            return working.reject_training(
                connection, session, held, errors=errors, bad_lines=len(errors)
            )

    def validated(self, tenant: str = TENANT, **spec: Any) -> str:
        """A job whose data were found good; its training is ready, unless it is paused."""
        job_id = self.fine_tune(tenant, **spec)
        assert self.open_training(self.claim_one("up", pools=["upkeep"]).held)
        self.dispatch("train")
        return job_id

    def claim_training(self, session: str = "trainer") -> Claim:
        return self.claim_one(session, pools=["train"])

    def training(self, tenant: str = TENANT, **spec: Any) -> tuple[str, Claim]:
        job_id = self.validated(tenant, **spec)
        return job_id, self.claim_training()

    def pause(self, job_id: str, tenant: str = TENANT) -> bool:
        with self.engine.begin() as connection:
            return lifecycle.request_pause(connection, tenant_id=tenant, job_id=job_id)

    def resume(self, job_id: str, tenant: str = TENANT) -> bool:
        with self.engine.begin() as connection:
            return lifecycle.request_resume(connection, tenant_id=tenant, job_id=job_id)

    def report(
        self, held: Held, *steps: TrainingStep, session: str = "trainer", **how: Any
    ) -> None:
        with self.engine.begin() as connection:
            working.report_training(connection, session, held, metrics=steps, **how)

    def checkpoint(
        self, claim: Claim, step: int, *, session: str = "trainer", **fields: Any
    ) -> list[str] | None:
        new = new_checkpoint(claim, step, **fields)
        with self.engine.begin() as connection:
            return working.add_checkpoint(connection, session, claim.held, new)

    def finish_training(
        self, claim: Claim, end: TrainingEnd | None = None, session: str = "trainer"
    ) -> bool:
        with self.engine.begin() as connection:
            return working.finish_training(
                connection, session, claim.held, end or training_end(claim)
            )

    def data_of_events(self, job_id: str, kind: str) -> list[dict[str, Any]]:
        rows = self.sql(
            "SELECT data FROM events WHERE job_id = :job AND type = :kind ORDER BY id",
            job=job_id,
            kind=kind,
        )
        return [row.data for row in rows]

    def kept_steps(self, job_id: str) -> list[int]:
        rows = self.sql(
            "SELECT step FROM checkpoints WHERE job_id = :job AND dropped_at IS NULL ORDER BY step",
            job=job_id,
        )
        return [row.step for row in rows]


def name_of(claim: Claim, step: int | None = None) -> str:
    name = f"ft:{claim.model}:{claim.tenant_id}::{claim.job_id[-8:]}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def model_of(name: str, files: list[ModelFile], **fields: Any) -> NewModel:
    values: dict[str, Any] = {
        "id": name,
        "pool": "text",
        "engine": "text",
        "base_model": "writer",
        "adapter": True,
        "endpoints": ["/v1/chat/completions"],
        "files": files,
        "bytes": sum(file.bytes for file in files),
        "detail": {"recipe": "supervised", "parents": ["writer"]},
        "owned_by": TENANT,
    }
    return NewModel(**(values | fields))


def new_checkpoint(claim: Claim, step: int, *, sha256: str = "c" * 64, **fields: Any) -> Any:
    prefix = f"t/{claim.tenant_id}/j/{claim.job_id}/c/{claim.epoch}-{step}/"
    weights = ModelFile("adapter.safetensors", f"{prefix}model/adapter.safetensors", 8, sha256)
    state = ModelFile("state.safetensors", f"{prefix}state.safetensors", 90, sha256)
    inside = ModelFile("model/adapter.safetensors", weights.key, 8, sha256)
    values: dict[str, Any] = {
        "id": new_id("ftckpt_"),
        "step": step,
        "prefix": prefix,
        "manifest_key": f"{prefix}manifest.json",
        "manifest_sha256": sha256,
        "files": [inside, state],
        "model_files": [weights],
        "bytes": 98,
        "metrics": {"valid_loss": 1.0 / step},
        "best": False,
        "model": model_of(name_of(claim, step), [weights]),
    }
    return NewCheckpoint(**(values | fields))


def training_end(claim: Claim, sha256: str = "d" * 64, **fields: Any) -> TrainingEnd:
    key = f"t/{claim.tenant_id}/m/{claim.job_id}/e{claim.epoch}/adapter.safetensors"
    weights = ModelFile("adapter.safetensors", key, 8, sha256)
    report = f"t/{claim.tenant_id}/j/{claim.job_id}/r/e{claim.epoch}/report.md"
    values: dict[str, Any] = {
        "model": model_of(name_of(claim), [weights]),
        "files": [NewFile(new_file_id(), "report.md", StoredObject(report, "r" * 64, 5))],
        "metrics": {"after": {"valid_loss": 0.5}},
        "trained_tokens": 1234,
        "step": 40,
        "seconds": 12.5,
    }
    return TrainingEnd(**(values | fields))
