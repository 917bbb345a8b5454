"""Health, for load balancers and for whoever starts the process."""

from __future__ import annotations

import structlog
from flask import Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.routes.replies import json_reply
from api.routing import RouteTable
from api.services import Services
from api.shapes import Health, Readiness

routes = RouteTable("Health", "Whether this process, and what it needs, is well")

log = structlog.get_logger()


@routes.get("/healthz", access="open", answers={200: Health})
def healthz(services: Services) -> Response:
    """The process answers; it asks nobody else."""
    return json_reply({"status": "ok"})


@routes.get("/readyz", access="open", answers={200: Readiness, 503: Readiness})
def readyz(services: Services) -> Response:
    """Whether jobs can be accepted. Without a broker they can: workers poll."""
    try:
        with services.autocommit.connect() as connection:
            connection.execute(text("SELECT 1"))
        database = "ok"
    except SQLAlchemyError as error:
        log.warning("not_ready", error=type(error).__name__)
        database = "down"
    ready = database == "ok"
    body = {
        "status": "ready" if ready else "unavailable",
        "database": database,
        "broker": services.broker.state(),
    }
    return json_reply(body, 200 if ready else 503, None if ready else {"Retry-After": "2"})
