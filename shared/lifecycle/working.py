"""What those do who do the work: claims, progress, ends. For workers and upkeep.

What requests ask for is in ``shared.lifecycle`` itself; the API never imports this half.
"""

from __future__ import annotations

from shared.lifecycle.artifacts import NewArtifact, add_preview
from shared.lifecycle.batches import finish_estimate, keep_sizes, take_input
from shared.lifecycle.claim import Claim, claim
from shared.lifecycle.dispatch import dispatch
from shared.lifecycle.fence import Held
from shared.lifecycle.finish import GenerationEnd, SliceEnd, finish_generations, finish_slice
from shared.lifecycle.imports import finish_import, reject_import
from shared.lifecycle.limit_notices import tell_of_limits
from shared.lifecycle.limits import NewLimits, settle_limits, unsettled_limits, writers
from shared.lifecycle.model_job_ends import (
    EvaluationEnd,
    ModelMeasured,
    OptimizationEnd,
    fail_model_job,
    finish_evaluation,
    finish_optimization,
)
from shared.lifecycle.monitor_answers import clean_monitors, count_answers
from shared.lifecycle.monitor_readers import give_up_monitor, postpone_monitor
from shared.lifecycle.monitor_work import (
    MonitorClaim,
    claim_monitor,
    hold_monitor,
    let_texts_go,
    open_monitor_batch,
    read_later,
    release_monitor,
    take_rows,
)
from shared.lifecycle.pause import pause_trials
from shared.lifecycle.production_end import ProductionEnd, finish_production
from shared.lifecycle.production_rounds import (
    NewProductionBatch,
    collect_production_batches,
    continue_production,
)
from shared.lifecycle.productions import (
    ProductionSize,
    finish_production_estimate,
    open_production,
    reject_production,
)
from shared.lifecycle.progress import RowStep, report_steps
from shared.lifecycle.release import ReleaseReason, release
from shared.lifecycle.schedule_ends import close_runs
from shared.lifecycle.schedule_readers import give_up_run, postpone_run
from shared.lifecycle.schedule_runs import (
    RowsRead,
    RunClaim,
    accept_run,
    begin_run,
    end_unchanged,
    fail_run,
    hold_run,
)
from shared.lifecycle.sessions import (
    Watched,
    close_session,
    declare_dead,
    drain_session,
    expired_sessions,
    heartbeat,
    open_session,
    recover_lost,
    report_progress,
    watch,
)
from shared.lifecycle.stages import NewFile, finish_assembly, finish_validation, reject_batch
from shared.lifecycle.steps import Graph, finish_step, unfold_slice
from shared.lifecycle.stop import (
    expire_overdue,
    stop_production_batches,
    stop_trials,
    sweep_stopped,
)
from shared.lifecycle.streams import NewDelta, add_deltas
from shared.lifecycle.sweep_end import SweepEnd, finish_sweep
from shared.lifecycle.sweeps import NewTrial, add_trials, collect_trials, prune_trial
from shared.lifecycle.training import NewCheckpoint, TrainingStep, add_checkpoint, report_training
from shared.lifecycle.training_end import TrainingEnd, finish_training
from shared.lifecycle.tuned_models import NewModel
from shared.lifecycle.tuning import (
    NewSweep,
    fail_training,
    finish_dry_run,
    open_training,
    reject_training,
)
from shared.lifecycle.tuning_events import add_note
from shared.lifecycle.uploads import finish_join, refuse_join
from shared.lifecycle.usage import UsageLine

__all__ = [
    "Claim",
    "EvaluationEnd",
    "GenerationEnd",
    "Graph",
    "Held",
    "ModelMeasured",
    "MonitorClaim",
    "NewArtifact",
    "NewCheckpoint",
    "NewDelta",
    "NewFile",
    "NewLimits",
    "NewModel",
    "NewProductionBatch",
    "NewSweep",
    "NewTrial",
    "OptimizationEnd",
    "ProductionEnd",
    "ProductionSize",
    "ReleaseReason",
    "RowStep",
    "RowsRead",
    "RunClaim",
    "SliceEnd",
    "SweepEnd",
    "TrainingEnd",
    "TrainingStep",
    "UsageLine",
    "Watched",
    "accept_run",
    "add_checkpoint",
    "add_deltas",
    "add_note",
    "add_preview",
    "add_trials",
    "begin_run",
    "claim",
    "claim_monitor",
    "clean_monitors",
    "close_runs",
    "close_session",
    "collect_production_batches",
    "collect_trials",
    "continue_production",
    "count_answers",
    "declare_dead",
    "dispatch",
    "drain_session",
    "end_unchanged",
    "expire_overdue",
    "expired_sessions",
    "fail_model_job",
    "fail_run",
    "fail_training",
    "finish_assembly",
    "finish_dry_run",
    "finish_estimate",
    "finish_evaluation",
    "finish_generations",
    "finish_import",
    "finish_join",
    "finish_optimization",
    "finish_production",
    "finish_production_estimate",
    "finish_slice",
    "finish_step",
    "finish_sweep",
    "finish_training",
    "finish_validation",
    "give_up_monitor",
    "give_up_run",
    "heartbeat",
    "hold_monitor",
    "hold_run",
    "keep_sizes",
    "let_texts_go",
    "open_monitor_batch",
    "open_production",
    "open_session",
    "open_training",
    "pause_trials",
    "postpone_monitor",
    "postpone_run",
    "prune_trial",
    "read_later",
    "recover_lost",
    "refuse_join",
    "reject_batch",
    "reject_import",
    "reject_production",
    "reject_training",
    "release",
    "release_monitor",
    "report_progress",
    "report_steps",
    "report_training",
    "settle_limits",
    "stop_production_batches",
    "stop_trials",
    "sweep_stopped",
    "take_input",
    "take_rows",
    "tell_of_limits",
    "unfold_slice",
    "unsettled_limits",
    "watch",
    "writers",
]
