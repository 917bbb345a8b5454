"""The composition root of the API: everything is built here, and handed on by argument."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

from flask import Flask, Response
from sqlalchemy import Engine

from api import rendering
from api.acting import StillActing
from api.auth import Authenticator
from api.broker import BrokerProbe
from api.delta_reader import make_delta_reader
from api.errors import register_errors
from api.estimates import Estimator
from api.group_commit import GroupCommit
from api.idempotency import register_endings
from api.limits import DATABASE_CONNECTIONS, TRANSACTION_CONNECTIONS
from api.multipart import sweep_abandoned
from api.polling_again import PollingAgain
from api.rate_limiting import Gate
from api.request_ids import ResponseHeaders
from api.routes import (
    admin,
    aliases,
    artifacts,
    audio,
    batches,
    campaigns,
    deletions,
    downloads,
    files,
    fine_tuning,
    fine_tuning_progress,
    health,
    images,
    inference,
    job_progress,
    jobs,
    model_imports,
    model_jobs,
    models,
    moderations,
    monitors,
    productions,
    responses,
    retention,
    schedules,
    uploads,
    usage,
    videos,
    webhook_deliveries,
    webhooks,
)
from api.routing import ReadOnlyRule
from api.services import Bell, LateServices, ModelCatalog, Services
from api.submitting import LimitsApply
from api.waiting import make_waiter
from shared.db.security import API_ROLE, acting_for
from shared.db.session import make_engine
from shared.doorbell import Ringer
from shared.lifecycle import NewGeneration, submit_unlimited_generations
from shared.settings import Settings
from shared.storage.base import Store
from shared.storage.open import open_store

ROUTE_TABLES = tuple(
    module.routes
    for module in (
        inference, responses, moderations, images, audio, videos, campaigns, jobs, job_progress,
        batches, productions, schedules, monitors, fine_tuning,
        fine_tuning_progress, artifacts, files, uploads, model_imports, model_jobs, models, aliases,
        downloads, webhooks, webhook_deliveries, deletions, retention, usage, admin, health,
    )
)  # fmt: skip
EXTENSION = "pressrun"
"""Where an app keeps its ``LateServices``: ``app.extensions[EXTENSION]``."""


def create_app(
    settings: Settings, *, store: Store | None = None, bell: Bell | None = None
) -> Flask:
    """The whole API as a WSGI application. It connects to nothing before the first request, so
    it may be built before a fork; gunicorn's workers make its services when they boot.

    ``store`` and ``bell`` take the place of those that the settings name.
    """
    services = LateServices(partial(make_services, settings, store=store, bell=bell))
    sweep_abandoned(settings.scratch_dir)
    app = Flask(__name__, static_folder=None)
    app.url_rule_class = ReadOnlyRule
    app.url_map.strict_slashes = True
    app.extensions[EXTENSION] = services
    register_errors(app)
    register_endings(app, services)
    for table in ROUTE_TABLES:
        table.register(app, services)
    app.add_url_rule("/openapi.json", "openapi", _openapi)
    polled = PollingAgain(app, app.wsgi_app, services)
    app.wsgi_app = ResponseHeaders(StillActing(polled))  # type: ignore[method-assign]
    return app


def make_services(
    settings: Settings, *, store: Store | None = None, bell: Bell | None = None
) -> Services:
    """Everything that requests work with."""
    engine = make_engine(
        settings.database_url, process="api", pool_size=TRANSACTION_CONNECTIONS, role=API_ROLE
    )
    autocommit = make_engine(
        settings.database_url,
        process="api",
        pool_size=DATABASE_CONNECTIONS,
        always_autocommit=True,
        role=API_ROLE,
    )
    admin_key = settings.admin_key
    waiter = make_waiter(
        autocommit, max_waiting=settings.api_waiting_requests or settings.api_threads // 2
    )
    return Services(
        settings=settings,
        engine=engine,
        autocommit=autocommit,
        intake=GroupCommit(partial(_queue, autocommit, window=settings.ready_window)),
        store=store or open_store(settings),
        bell=bell or Ringer(settings.broker_url),
        broker=BrokerProbe(settings.broker_url),
        auth=Authenticator(
            autocommit,
            admin_key=admin_key.get_secret_value() if admin_key else None,
            cache_seconds=settings.key_cache_seconds,
        ),
        gate=Gate(autocommit),
        models=ModelCatalog(autocommit),
        waiter=waiter,
        estimator=Estimator(autocommit),
        deltas=make_delta_reader(autocommit, stopping=lambda: waiter.stopping),
    )


def _queue(autocommit: Engine, new: Sequence[NewGeneration], *, window: int) -> None:
    with acting_for(*{one.tenant_id for one in new}), autocommit.connect() as connection:
        if not submit_unlimited_generations(connection, new, window=window):
            raise LimitsApply


def _openapi() -> Response:
    return Response(_openapi_text(), content_type="application/json")


@cache
def _openapi_text() -> str:
    from api.document import openapi_document

    return rendering.compact(openapi_document(ROUTE_TABLES))
