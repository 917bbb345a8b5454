"""Settings of workers and their engines, and of upkeep."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.retention import parse_retention


class WorkerSettings(BaseModel):
    """How work is claimed and run, and how long things are kept."""

    model_config = ConfigDict(defer_build=True)

    pools: Annotated[
        str,
        Field(description="Pools a worker serves when `--pools` is not given, comma-separated."),
    ] = "text"
    heartbeat_seconds: Annotated[
        float, Field(gt=0, description="How often a worker renews its session lease.")
    ] = 5.0
    session_ttl_seconds: Annotated[
        float, Field(gt=0, description="A session not renewed for this long is dead.")
    ] = 30.0
    poll_seconds: Annotated[
        float,
        Field(gt=0, description="How often workers look for work that no doorbell announced."),
    ] = 2.0
    upkeep_seconds: Annotated[
        float, Field(gt=0, description="Pause between passes of dispatcher, reaper and cleaner.")
    ] = 1.0
    drain_seconds: Annotated[
        float,
        Field(gt=0, description="After SIGTERM: time to finish shards before giving them back."),
    ] = 20.0
    idle_engine_seconds: Annotated[
        float,
        Field(gt=0, description="A child with work that finishes no step for this long is killed."),
    ] = 120.0
    load_engine_seconds: Annotated[
        float, Field(gt=0, description="A child that loads its model for longer is killed.")
    ] = 900.0
    ready_window: Annotated[
        int, Field(ge=1, description="Shards of one tenant and pool that may be ready at a time.")
    ] = 32
    model_memory_bytes: Annotated[
        int | None,
        Field(description="Memory for loaded models on a worker; default: 70 % of the machine's."),
    ] = None
    model_cache_bytes: Annotated[
        int,
        Field(
            ge=1,
            description="Disk for tuned models that a worker has fetched from the store, below "
            "`SCRATCH_DIR`; the least recently used make room.",
        ),
    ] = 20 * 2**30
    engine_threads: Annotated[
        int | None, Field(description="CPU threads of an engine child; default: all cores.")
    ] = None
    train_slots: Annotated[
        int, Field(ge=1, description="Trainings that a worker of the pool `train` runs at a time.")
    ] = 1
    train_idle_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="A training that says nothing for this long, not even the loss of a step, "
            "is killed and tried again.",
        ),
    ] = 1800.0
    hub_offline: Annotated[
        bool, Field(description="Forbid engines to download models from a hub.")
    ] = False

    retention_days: Annotated[
        str,
        Field(
            description="Days for which things are kept: `jobs=90,outputs=30`, of `input_files`, "
            "`outputs`, `jobs`, `events`, `usage` and `archive`; what is not listed is kept for "
            "ever. Tenants may have policies of their own.",
        ),
    ] = ""
    deletion_grace_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="How long after the end of a job a worker that was given up might still "
            "write objects of it; deletions are complete only then.",
        ),
    ] = 3600.0

    @field_validator("retention_days")
    @classmethod
    def _lists_days(cls, days: str) -> str:
        parse_retention(days)
        return days
