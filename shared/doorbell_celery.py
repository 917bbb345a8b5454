"""The Celery side of doorbells: their queues, their one task, and how to reach the broker."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from shared.doorbell_folder import MOST_WAITING, TTL_SECONDS, folder_options
from shared.pools import is_pool_name

RING_TASK = "pressrun.ring"
EXCHANGE = "pressrun.doorbell"
FOLDER_SCHEME = "filesystem://"


def doorbell_queue(pool: str) -> Queue:
    """The queue ``pressrun.doorbell.{pool}``, the same for those who ring and those who listen.

    What nobody hears is forgotten after a minute: workers poll as well. Raises ValueError.
    """
    if not is_pool_name(pool):
        raise ValueError(f"not the name of a pool: {pool!r}")
    name = f"pressrun.doorbell.{pool}"
    return Queue(
        name,
        exchange=Exchange(EXCHANGE, type="direct", durable=True),
        routing_key=name,
        durable=True,
        queue_arguments={
            # Named, as a virtual host may make quorum queues by default.
            "x-queue-type": "classic",
            "x-message-ttl": TTL_SECONDS * 1000,
            "x-max-length": MOST_WAITING,
            "x-overflow": "drop-head",
        },
    )


class DoorbellCelery(Celery):
    """Connects to the URL it was made with: of Celery's own accord, its environment variables
    (``CELERY_BROKER_URL`` and the like) would go before it."""

    def __init__(self, broker_url: str) -> None:
        super().__init__(
            "pressrun",
            broker=broker_url,
            backend="disabled",
            loader="app",
            fixups=[],
            set_as_current=False,
        )
        self._broker_url = broker_url

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(url or self._broker_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(url or self._broker_url, **options)


def make_celery(broker_url: str, pools: Iterable[str] = ()) -> Celery:
    """An application that carries doorbells of ``pools``, and nothing else, over the broker.

    ``broker_url`` is ``amqp://…``, or ``filesystem://DIR`` with a plain path, whose folders are
    made. Raises ValueError for no URL, OSError for a folder that can't be made.
    """
    if not broker_url:
        raise ValueError("no broker: there are no doorbells without one")
    url, options = _broker(broker_url)
    app = DoorbellCelery(url)
    app.conf.update(
        **options,
        task_queues=[doorbell_queue(pool) for pool in pools],
        task_create_missing_queues=False,
        task_default_delivery_mode="transient",
        task_acks_late=False,
        task_ignore_result=True,
        result_backend=None,
        accept_content=["json"],
        task_serializer="json",
        task_publish_retry=False,
        broker_heartbeat=20,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    if list(app.conf.accept_content) != ["json"]:
        raise AssertionError("doorbells must be JSON: other content could run code")
    return app


def _broker(broker_url: str) -> tuple[str, dict[str, Any]]:
    """The URL for Celery, and the settings that belong to it."""
    if not broker_url.startswith(FOLDER_SCHEME):
        timeouts = {"connect_timeout": 3, "read_timeout": 5, "write_timeout": 5}
        return broker_url, {"broker_transport_options": timeouts}
    # With a host name, which kombu misses in the log otherwise.
    return f"{FOLDER_SCHEME}localhost", {
        "broker_transport": "shared.doorbell_folder:Transport",
        "broker_transport_options": folder_options(Path(broker_url.removeprefix(FOLDER_SCHEME))),
    }
