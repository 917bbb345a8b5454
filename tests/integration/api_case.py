"""The API in this process on a database of the test's own, with a tenant, a key and a model.

Import ``api_fixture`` into a test module to have the fixture ``api`` there.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from werkzeug.test import TestResponse

from api.app import EXTENSION, create_app
from api.services import Services
from shared.db.models import sync_catalog
from shared.db.session import make_engine
from shared.ids import new_session_id
from shared.lifecycle import working
from shared.models_catalog import ModelEntry
from shared.settings import Settings

MODEL = "models/writer:1"
ADMIN_KEY = "an administrator's key"
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
COMPLETION: dict[str, Any] = {
    "endpoint": "/v1/completions",
    "body": {"model": MODEL, "prompt": "x", "seed": 1},
}
PATIENCE_SECONDS = 20.0


class RecordingBell:
    """A doorbell that only remembers which pools were rung."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, pool: str) -> None:
        self.rung.append(pool)

    def close(self) -> None:
        pass


def make_settings(database_url: str, folder: Path, **changed: Any) -> Settings:
    values: dict[str, Any] = {
        "database_url": database_url,
        "storage_dir": folder / "store",
        "scratch_dir": folder / "scratch",
        "signing_key": "a signing key of some length",
        "admin_key": ADMIN_KEY,
    }
    return Settings(**(values | changed))


class ApiCase:
    """One API and one tenant; ``key`` is its header."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bell = RecordingBell()
        self.app = create_app(settings, bell=self.bell)
        self.services: Services = self.app.extensions[EXTENSION]()
        self.client = self.app.test_client()
        self.engine: Engine = make_engine(settings.database_url, process="test")
        with self.begin() as connection:
            entry = ModelEntry(
                id=MODEL,
                engine="fake",
                endpoints=["/v1/completions", "/v1/chat/completions"],
            )
            sync_catalog(connection, [entry])
        self.key = self.new_tenant()

    def close(self) -> None:
        self.services.close()
        self.engine.dispose()

    def new_tenant(self) -> dict[str, str]:
        """The ``Authorization`` header of a new tenant."""
        tenant = self.client.post("/v1/admin/tenants", json={"name": "t"}, headers=ADMIN).json
        path = f"/v1/admin/tenants/{tenant['id']}/keys"
        key = self.client.post(path, headers=ADMIN).json["key"]
        return {"Authorization": f"Bearer {key}"}

    def get(self, path: str, headers: dict[str, str] | None = None) -> TestResponse:
        return self.app.test_client().get(path, headers=self.key | (headers or {}))

    def post(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> TestResponse:
        return self.client.post(path, json=body, headers=self.key | (headers or {}))

    def delete(self, path: str) -> TestResponse:
        return self.client.delete(path, headers=self.key)

    def submit(self, **changed: Any) -> str:
        reply = self.post("/v1/jobs", COMPLETION | changed)
        assert reply.status_code == 202, reply.json
        return str(reply.json["id"])

    def upload(
        self,
        content: bytes = b"{}\n",
        *,
        filename: str = "rows.jsonl",
        headers: dict[str, str] | None = None,
        **fields: str,
    ) -> TestResponse:
        form = {"purpose": "batch", **fields, "file": (io.BytesIO(content), filename)}
        return self.client.post("/v1/files", data=form, headers=self.key | (headers or {}))

    def submit_batch(self, **changed: Any) -> str:
        body = {
            "input_file_id": self.upload().json["id"],
            "endpoint": "/v1/completions",
            "completion_window": "24h",
        }
        reply = self.post("/v1/batches", body | changed)
        assert reply.status_code == 200, reply.json
        return str(reply.json["id"])

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            yield connection

    def open_session(self, connection: Connection) -> str:
        """A worker's session, to claim and finish shards with."""
        session_id = new_session_id()
        working.open_session(
            connection,
            session_id=session_id,
            host="test",
            pid=1,
            pools=["text", "upkeep"],
            ttl_seconds=600,
        )
        return session_id

    def until_waiting(self, requests: int) -> None:
        """Returns once so many requests are in a long-poll."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.services.waiter.waiting < requests:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    @contextmanager
    def count_statements(self) -> Iterator[list[str]]:
        """The statements that the API sends during the block."""
        seen: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            seen.append(statement)

        engines = (self.services.engine, self.services.autocommit)
        for engine in engines:
            event.listen(engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            for engine in engines:
                event.remove(engine, "before_cursor_execute", note)


@pytest.fixture(name="api")
def api_fixture(database_url: str, tmp_path: Path) -> Iterator[ApiCase]:
    case = ApiCase(make_settings(database_url, tmp_path, key_cache_seconds=60))
    yield case
    case.close()
