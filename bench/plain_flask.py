"""What one writes without Pressrun: Flask routes around plain Celery, and one that does nothing."""

from __future__ import annotations

import json
from typing import Any

from celery.result import AsyncResult
from flask import Flask, Response, request

from bench.plain_celery import make_app as make_celery


def make_app(broker_url: str = "", result_url: str = "", payload: str = "") -> Flask:
    """A WSGI application.

    ``payload`` is a file of JSON that ``GET /bare`` answers with. The routes of tasks need the
    URLs of Celery's broker and result database.
    """
    app = Flask(__name__)
    app.get("/ready")(lambda: "ready")
    if payload:
        _add_bare_route(app, payload)
    if broker_url:
        _add_task_routes(app, broker_url, result_url)
    return app


def _add_bare_route(app: Flask, payload: str) -> None:
    with open(payload, encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)

    @app.get("/bare")
    def bare() -> Response:
        return Response(
            json.dumps(document, separators=(",", ":")), content_type="application/json"
        )


def _add_task_routes(app: Flask, broker_url: str, result_url: str) -> None:
    celery = make_celery(broker_url, result_url)
    noop = celery.tasks["plain.noop"]

    @app.post("/tasks")
    def submit() -> tuple[dict[str, str], int]:
        return {"id": noop.delay(request.get_json()).id}, 202

    @app.get("/tasks/<task_id>")
    def show(task_id: str) -> dict[str, Any]:
        found: AsyncResult[Any] = AsyncResult(task_id, app=celery)
        return {"id": task_id, "state": found.state, "result": found.result}
