"""The composition root of the API: everything is built here, and handed on by argument."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask_openapi.models.info import Info
from flask_openapi.openapi import OpenAPI
from sqlalchemy import Engine, event

from api import rendering
from api.auth import Authenticator
from api.broker import BrokerProbe
from api.errors import register_errors
from api.limits import DATABASE_CONNECTIONS, TRANSACTION_CONNECTIONS
from api.objects import Problem
from api.request_ids import ResponseHeaders
from api.routes import admin, batches, downloads, files, health, jobs, models
from api.routing import SECURITY_SCHEMES
from api.services import Bell, ModelCatalog, Services
from api.uploads import sweep_abandoned
from api.waiting import make_waiter
from shared.db.session import make_engine
from shared.doorbell import Ringer
from shared.settings import Settings
from shared.storage.base import Store
from shared.storage.open import open_store
from shared.version import VERSION

EXTENSION = "pressrun"
"""Where an app keeps its services: ``app.extensions[EXTENSION]``."""


def create_app(
    settings: Settings, *, store: Store | None = None, bell: Bell | None = None
) -> OpenAPI:
    """The whole API as a WSGI application. It connects to nothing before the first request, so
    it may be built before a fork.

    ``store`` and ``bell`` take the place of those that the settings name.
    """
    services = make_services(settings, store=store, bell=bell)
    sweep_abandoned(settings.scratch_dir)
    app = OpenAPI(
        __name__,
        info=Info(title="Pressrun", version=VERSION, description=_DESCRIPTION),
        security_schemes=SECURITY_SCHEMES,  # type: ignore[arg-type]
        # Views validate by themselves; these keep the library's own 422 out of the document.
        validation_error_status=400,
        validation_error_model=Problem,
        doc_ui=False,
        static_folder=None,
    )
    app.openapi_version = "3.1.0"
    app.url_map.strict_slashes = True
    app.extensions[EXTENSION] = services
    register_errors(app)
    for module in (jobs, batches, files, models, downloads, admin, health):
        module.routes.register(app, services)
    app.add_url_rule("/openapi.json", "openapi", _document(app))
    app.wsgi_app = ResponseHeaders(app.wsgi_app)  # type: ignore[method-assign]
    return app


def make_services(
    settings: Settings, *, store: Store | None = None, bell: Bell | None = None
) -> Services:
    """Everything that requests work with."""
    engine = make_engine(
        settings.database_url, process="api", pool_size=TRANSACTION_CONNECTIONS
    )
    autocommit = _autocommitting(settings)
    admin_key = settings.admin_key
    return Services(
        settings=settings,
        engine=engine,
        autocommit=autocommit,
        store=store or open_store(settings),
        bell=bell or Ringer(settings.broker_url),
        broker=BrokerProbe(settings.broker_url),
        auth=Authenticator(
            autocommit,
            admin_key=admin_key.get_secret_value() if admin_key else None,
            cache_seconds=settings.key_cache_seconds,
        ),
        models=ModelCatalog(autocommit),
        waiter=make_waiter(autocommit),
    )


def _autocommitting(settings: Settings) -> Engine:
    """Connections that stay in autocommit: to switch one back and forth costs a quarter of the
    time that a job's lookup takes."""
    engine = make_engine(
        settings.database_url, process="api", pool_size=DATABASE_CONNECTIONS
    )

    @event.listens_for(engine, "connect")
    def switch_on(connection: Any, _record: object) -> None:
        connection.autocommit = True

    return engine


_DESCRIPTION = (
    "Submit jobs and batches of generation, follow them, fetch their results. Files, batches and "
    "models speak OpenAI's wire format. Every problem is `application/problem+json` with an "
    "`error` member that OpenAI's SDKs read; every response carries `x-request-id`."
)


def _document(app: OpenAPI) -> Any:
    def openapi() -> Response:
        return Response(rendering.compact(app.api_doc), content_type="application/json")

    return openapi
