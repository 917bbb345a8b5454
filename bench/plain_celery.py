"""Celery as its documentation begins: one task, RabbitMQ, results in Postgres, prefork.

    python -m bench.plain_celery BROKER_URL RESULT_URL

runs its worker. ``delay`` is all that a client of it calls.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from celery import Celery

PROCESSES = 2


def make_app(broker_url: str, result_url: str) -> Celery:
    """``result_url`` is an SQLAlchemy URL; everything else is Celery's default."""
    app = Celery("plain", broker=broker_url, backend=f"db+{result_url}", set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True

    @app.task(name="plain.noop", shared=False)
    def noop(_body: dict[str, Any]) -> None:
        """Does nothing."""

    @app.task(name="plain.stamp", shared=False)
    def stamp() -> float:
        """When it began, in Unix seconds."""
        return time.time()

    return app


def main() -> None:
    broker_url, result_url = sys.argv[1:]
    make_app(broker_url, result_url).worker_main(
        ["worker", "--pool", "prefork", "--concurrency", str(PROCESSES), "--loglevel", "WARNING"]
    )


if __name__ == "__main__":
    main()
