"""Gunicorn's settings for the API; the command line overrides any of them.

Gunicorn reads this file by its path, from wherever it is started: it imports nothing of ours.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

wsgi_app = "api.wsgi:app"
worker_class = "gthread"
workers = max(1, min(4, os.cpu_count() or 1))
threads = 24
"""Unless ``PRESSRUN_API_THREADS`` says otherwise."""
keepalive = 75
"""Longer than the idle timeout of usual load balancers (60 s), so that they hang up, not we."""
timeout = 60
graceful_timeout = 30
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (heartbeat files)


def post_fork(_server: Any, worker: Any) -> None:
    """Takes the number of threads from the settings, which are read where the application is."""
    from shared.settings import load_settings

    count = load_settings().api_threads
    worker.cfg.set("threads", count)
    # A thread for each that is served, and as many again may be kept open without one.
    worker.worker_connections = max(worker.worker_connections, 2 * count)
    worker.max_keepalived = worker.worker_connections - count


def pre_request(worker: Any, request: Any) -> None:
    """A head was read: its body, and the next head, have a patience of their own."""
    from api.patience import renew

    renew(request.unreader, worker.pressrun_patience)


def post_worker_init(worker: Any) -> None:
    """Makes what requests work with, rather than let the first of them wait for it. Long-polls end
    when the worker is told to stop, rather than hold it for their whole time; and requests that
    gunicorn refuses by itself get a problem, and are not quoted in its log. Clients that let their
    requests drip are hung up on."""
    from gunicorn import util  # type: ignore[import-untyped]
    from gunicorn.http.unreader import SocketUnreader  # type: ignore[import-untyped]

    from api.patience import patient
    from api.unreadable import NothingQuoted, write_problem
    from shared.settings import load_settings

    util.write_error = write_problem
    worker.log.error_log.addFilter(NothingQuoted())
    worker.pressrun_patience = load_settings().api_patience_seconds
    SocketUnreader.chunk = patient(SocketUnreader.chunk, worker.pressrun_patience)
    services = _services(worker)
    if services is not None:
        services().waiter.serve_while(lambda: worker.alive)


def worker_exit(_server: Any, worker: Any) -> None:
    """Sends the last doorbells and closes connections."""
    services = _services(worker)
    if services is not None:
        services.close()


def _services(worker: Any) -> Any:
    """The application's ``LateServices``; None where it has failed to load."""
    return getattr(getattr(worker, "wsgi", None), "extensions", {}).get("pressrun")
