"""Plain Celery as a running system, for the figures that compare with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from celery import Celery
from sqlalchemy import Engine, create_engine, text

from bench.plain_celery import make_app
from bench.rig import Rig

WARM_SECONDS = 60.0
_RESULTS = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"


@dataclass(frozen=True, slots=True)
class PlainCelery:
    """An application, the addresses of its broker and results, and its result database."""

    app: Celery
    broker_url: str
    result_url: str
    engine: Engine

    def results(self) -> int:
        """How many tasks have succeeded, as its result table says."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(_RESULTS)).scalar_one())


@contextmanager
def plain_celery(rig: Rig, *, worker: bool = True) -> Iterator[PlainCelery]:
    """Celery with two prefork processes, which have run a task each when this returns.

    Without its ``worker``, messages stay in the queue; the result table then is there all the
    same.
    """
    broker_url = rig.rabbitmq.url_of(rig.rabbitmq.new_vhost())
    with rig.database(empty=True) as result_url:
        app = make_app(broker_url, result_url)
        engine = create_engine(result_url)
        try:
            plain = PlainCelery(app, broker_url, result_url, engine)
            with rig.process("celery", "-m", "bench.plain_celery", broker_url, result_url):
                _warm(app)
                if worker:
                    yield plain
            if not worker:
                yield plain
        finally:
            app.close()
            engine.dispose()


def _warm(app: Celery) -> None:
    # Alone at first: the processes would make the result tables at the same time, and one fail.
    stamp = app.tasks["plain.stamp"]
    stamp.delay().get(timeout=WARM_SECONDS)
    for task in [stamp.delay() for _ in range(8)]:
        task.get(timeout=WARM_SECONDS)
