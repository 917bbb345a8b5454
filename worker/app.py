"""The composition root of a worker process."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy import Engine

from shared.db.session import make_engine
from shared.doorbell import Ringer
from shared.egress import parse_allowed
from shared.feed_roots import parse_roots
from shared.lifecycle.working import Held
from shared.pools import TRAIN, UPKEEP
from shared.retention import parse_retention
from shared.settings import Settings
from shared.storage.base import Store
from shared.storage.open import open_store
from shared.translation.thresholds import parse_thresholds
from worker.admission import Admission
from worker.catalog import ModelCache
from worker.commits import Commits
from worker.doorbell_listener import Listener
from worker.egress import Egress
from worker.engines.child import engine_environment
from worker.engines.pool import EnginePool
from worker.generation import Generation
from worker.model_files import ModelFiles
from worker.session import Session
from worker.spool import Spool
from worker.supervisor import Supervisor
from worker.tuning.trainings import Trainings
from worker.upkeep.chores import UpkeepChores
from worker.upkeep.cleaner import Cleaner
from worker.upkeep.feeds_pass import FeedPass
from worker.upkeep.feeds_reading import SourceReader
from worker.upkeep.monitors import Monitors
from worker.upkeep.passes import Passes
from worker.upkeep.reaper import Reaper
from worker.upkeep.retention_pass import RetentionPass
from worker.upkeep.schedules import ScheduleRuns
from worker.upkeep.webhooks import WebhookSender
from worker.wakeup import Mailbox

log = structlog.get_logger()

DATABASE_CONNECTIONS = 28
"""One for each thread that may use one: loop, heartbeat, commits, uploads, readers, chores,
passes, webhooks, retention, feeds."""
TRAINING_CONNECTIONS = 2
"""More for each training: one follows it, one commits its checkpoints."""
AUTOCOMMIT_CONNECTIONS = 2
"""For the loop's claims and watches, and for commits of single generations."""
COMMIT_GRACE_SECONDS = 5.0


class Worker:
    """Everything one worker process consists of; ``run`` returns when it has drained."""

    def __init__(self, settings: Settings, pools: Sequence[str]) -> None:
        self._settings = settings
        self._pools = list(pools)
        self._spool = Spool(settings.scratch_dir)
        training = TRAINING_CONNECTIONS * settings.train_slots if TRAIN in pools else 0
        self._database: Engine = make_engine(
            settings.database_url,
            process="worker",
            pool_size=DATABASE_CONNECTIONS + training,
        )
        self._autocommit: Engine = make_engine(
            settings.database_url,
            process="worker",
            pool_size=AUTOCOMMIT_CONNECTIONS,
            always_autocommit=True,
            short_statements=True,
        )
        self._store: Store = open_store(settings)
        self._model_files = ModelFiles(
            self._store, settings.scratch_dir / "models", settings.model_cache_bytes
        )
        self._ringer = Ringer(settings.broker_url)
        self._mailbox = Mailbox()
        self._session = Session(
            self._database,
            pools=self._pools,
            heartbeat_seconds=settings.heartbeat_seconds,
            ttl_seconds=settings.session_ttl_seconds,
            on_lost=self._session_lost,
        )
        self._commits = self._make_commits()
        self._engines = self._make_engines()
        self._desks: dict[str, UpkeepChores | Trainings] = {}
        if UPKEEP in self._pools:
            self._desks[UPKEEP] = self._make_chores()
        if TRAIN in self._pools:
            self._desks[TRAIN] = self._make_trainings()
        self._passes = self._make_passes() if UPKEEP in self._pools else None
        self._webhooks = self._make_webhooks() if UPKEEP in self._pools else None
        self._retention = self._make_retention() if UPKEEP in self._pools else None
        self._feeds = self._make_feeds() if UPKEEP in self._pools else None
        self.supervisor = self._make_supervisor()
        self._listener = Listener(
            settings.broker_url,
            self._pools,
            self.supervisor.ring,
            node_name=f"supervisor-{uuid.uuid4().hex[:12]}",
        )

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains; a second signal drains at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.supervisor.drain())
        self._listener.start()
        if self._passes is not None:
            self._passes.start()
        if self._webhooks is not None:
            self._webhooks.start()
        if self._retention is not None:
            self._retention.start()
        if self._feeds is not None:
            self._feeds.start()
        try:
            self.supervisor.run()
        finally:
            self._stop()

    def _stop(self) -> None:
        if self._passes is not None:
            self._passes.stop()
        if self._webhooks is not None:
            self._webhooks.stop()
        if self._retention is not None:
            self._retention.stop()
        if self._feeds is not None:
            self._feeds.stop()
        for desk in self._desks.values():
            desk.close()
        self._commits.close(timeout=COMMIT_GRACE_SECONDS)
        self._engines.kill_all()
        self._spool.close()
        self._model_files.close()
        self._session.close()
        self._listener.stop()
        self._ringer.close(timeout=1.0)
        with suppress(OSError):
            self._mailbox.close()
        self._autocommit.dispose()
        self._database.dispose()
        log.info("worker_stopped")

    def _session_lost(self) -> None:
        self.supervisor.session_lost()

    def _closed(self, held: Held) -> None:
        self.supervisor.closed(held)

    def _make_commits(self) -> Commits:
        return Commits(
            self._database,
            self._autocommit,
            self._store,
            self._session,
            self._ringer,
            on_closed=self._closed,
        )

    def _make_engines(self) -> EnginePool:
        settings = self._settings
        return EnginePool(
            memory_bytes=settings.model_memory_bytes,
            environment=engine_environment(os.environ, offline=settings.hub_offline),
            threads=settings.engine_threads,
            folders=self._spool,
            public_url=(settings.public_url or "").rstrip("/"),
        )

    def _make_supervisor(self) -> Supervisor:
        settings = self._settings
        generation = Generation(
            self._engines,
            self._commits,
            ModelCache(self._database),
            self._model_files,
            self._spool,
            idle_engine_seconds=settings.idle_engine_seconds,
            load_engine_seconds=settings.load_engine_seconds,
        )
        return Supervisor(
            database=self._database,
            autocommit=self._autocommit,
            session=self._session,
            mailbox=self._mailbox,
            generation=generation,
            admission=Admission(
                database=self._database,
                store=self._store,
                spool=self._spool,
                files=self._model_files,
                session=self._session,
                mailbox=self._mailbox,
                generation=generation,
                thresholds=parse_thresholds(settings.moderation_threshold),
            ),
            desks=self._desks,
            pools=self._pools,
            window=settings.ready_window,
            poll_seconds=settings.poll_seconds,
            drain_seconds=settings.drain_seconds,
            congested=self._commits.congested,
        )

    def _make_chores(self) -> UpkeepChores:
        return UpkeepChores(
            self._database,
            self._store,
            self._session,
            self._ringer,
            on_closed=self._closed,
            max_rows=self._settings.max_batch_rows,
            max_line_bytes=self._settings.max_line_bytes,
            max_reported=self._settings.max_reported_errors,
            scratch=self._settings.scratch_dir,
            moderation_model=self._settings.moderation_model,
        )

    def _make_trainings(self) -> Trainings:
        return Trainings(
            self._database,
            self._store,
            self._session,
            self._ringer,
            self._model_files,
            on_closed=self._closed,
            folder=self._spool.root / "trainings",
            environment=engine_environment(os.environ, offline=self._settings.hub_offline),
            slots=self._settings.train_slots,
            threads=self._settings.engine_threads,
            idle_seconds=self._settings.train_idle_seconds,
        )

    def _make_retention(self) -> RetentionPass:
        return RetentionPass(
            self._database,
            self._store,
            defaults=parse_retention(self._settings.retention_days),
            grace_seconds=self._settings.deletion_grace_seconds,
            pause_seconds=self._settings.upkeep_seconds,
        )

    def _make_webhooks(self) -> WebhookSender:
        settings = self._settings
        return WebhookSender(
            self._database,
            Egress(
                allowed=parse_allowed(settings.webhook_allowed_hosts),
                ca_file=settings.webhook_ca_file,
                timeout_seconds=settings.webhook_timeout_seconds,
            ),
            concurrency=settings.webhook_concurrency,
            timeout_seconds=settings.webhook_timeout_seconds,
            pause_seconds=settings.upkeep_seconds,
        )

    def _make_feeds(self) -> FeedPass:
        settings = self._settings
        egress = Egress(
            allowed=parse_allowed(settings.feed_allowed_hosts),
            ca_file=settings.webhook_ca_file,
            timeout_seconds=settings.feed_timeout_seconds,
        )
        roots = parse_roots(settings.feed_folders)
        reader = SourceReader(egress, roots, max_bytes=settings.feed_max_bytes)
        common = (self._database, self._store, self._ringer, reader)
        window = settings.ready_window
        runs = ScheduleRuns(*common, window=window, most_failures=settings.schedule_max_failures)
        monitors = Monitors(*common, window=window)
        return FeedPass(runs, monitors, pause_seconds=settings.upkeep_seconds)

    def _make_passes(self) -> Passes:
        return Passes(
            self._database,
            self._ringer,
            Reaper(
                self._database,
                heartbeat_seconds=self._settings.heartbeat_seconds,
                ttl_seconds=self._settings.session_ttl_seconds,
            ),
            Cleaner(self._database, self._store),
            window=self._settings.ready_window,
            pause_seconds=self._settings.upkeep_seconds,
        )
