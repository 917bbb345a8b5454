"""Gunicorn's threads are those of the settings, and some are left for those who don't wait."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from api.gunicorn_conf import post_fork
from shared.settings import SettingsError, load_settings


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRESSRUN_DATABASE_URL", "postgresql+psycopg://nobody@localhost/x")
    monkeypatch.setenv("PRESSRUN_SIGNING_KEY", "a signing key of some length")
    monkeypatch.setenv("PRESSRUN_STORAGE_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("threads", "connections", "kept_alive"), [(24, 1_000, 976), (720, 1_440, 720)]
)
def test_a_worker_gets_its_threads_from_the_settings(
    monkeypatch: pytest.MonkeyPatch, threads: int, connections: int, kept_alive: int
) -> None:
    monkeypatch.setenv("PRESSRUN_API_THREADS", str(threads))
    worker = SimpleNamespace(cfg=Config(), worker_connections=1_000, max_keepalived=0)
    post_fork(None, worker)
    assert worker.cfg.threads == threads
    assert (worker.worker_connections, worker.max_keepalived) == (connections, kept_alive)


def test_not_every_thread_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_API_WAITING_REQUESTS", "23")
    assert load_settings().api_waiting_requests == 23
    monkeypatch.setenv("PRESSRUN_API_WAITING_REQUESTS", "24")
    with pytest.raises(SettingsError, match="PRESSRUN_API_WAITING_REQUESTS"):
        load_settings()
