"""Every change of a job's, a shard's or a session's state; nothing else writes one.

Each function takes a connection, runs one short transaction's worth of statements and never
commits. All comparisons of time use the database's clock. Lock order is shards, then jobs. What
stops a job starts from the job instead, and therefore skips shards that somebody holds; so do the
ends of steps about the rest of their graph (``graphs``).

Here is what requests ask for; what those do who do the work is in ``shared.lifecycle.working``.
"""

from __future__ import annotations

from shared.lifecycle.imports import submit_import
from shared.lifecycle.model_jobs import NewOptimization, submit_evaluation, submit_optimization
from shared.lifecycle.monitors import (
    NewMonitor,
    create_monitor,
    delete_monitor,
    post_texts,
    set_monitor_state,
)
from shared.lifecycle.pause import request_pause, request_resume
from shared.lifecycle.productions import NewProduction, submit_production
from shared.lifecycle.schedules import (
    NewSchedule,
    ask_run,
    create_schedule,
    delete_schedule,
    pause_schedule,
    resume_schedule,
)
from shared.lifecycle.stages import BadLine
from shared.lifecycle.stop import request_stop
from shared.lifecycle.submit import (
    ClientId,
    NewGeneration,
    submit_batch,
    submit_generation,
    submit_generations,
    submit_plan,
    submit_unlimited_generations,
)
from shared.lifecycle.tuning import submit_fine_tune
from shared.lifecycle.uploads import add_part, cancel_upload, create_upload, submit_join
from shared.lifecycle.used_keys import Idempotency, remember_object
from shared.lifecycle.webhooks import (
    JobWebhook,
    add_test_delivery,
    attach_webhook,
    cancel_deliveries,
    replay_delivery,
    replay_since,
)

__all__ = [
    "BadLine",
    "ClientId",
    "Idempotency",
    "JobWebhook",
    "NewGeneration",
    "NewMonitor",
    "NewOptimization",
    "NewProduction",
    "NewSchedule",
    "add_part",
    "add_test_delivery",
    "ask_run",
    "attach_webhook",
    "cancel_deliveries",
    "cancel_upload",
    "create_monitor",
    "create_schedule",
    "create_upload",
    "delete_monitor",
    "delete_schedule",
    "pause_schedule",
    "post_texts",
    "remember_object",
    "replay_delivery",
    "replay_since",
    "request_pause",
    "request_resume",
    "request_stop",
    "resume_schedule",
    "set_monitor_state",
    "submit_batch",
    "submit_evaluation",
    "submit_fine_tune",
    "submit_generation",
    "submit_generations",
    "submit_import",
    "submit_join",
    "submit_optimization",
    "submit_plan",
    "submit_production",
    "submit_unlimited_generations",
]
