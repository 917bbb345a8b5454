"""The API's own gunicorn settings, without its hooks, for the applications it is compared with."""

from __future__ import annotations

from api.gunicorn_conf import (
    control_socket_disable,
    graceful_timeout,
    keepalive,
    threads,
    timeout,
    worker_class,
    worker_tmp_dir,
    workers,
)

__all__ = [
    "control_socket_disable",
    "graceful_timeout",
    "keepalive",
    "threads",
    "timeout",
    "worker_class",
    "worker_tmp_dir",
    "workers",
]
