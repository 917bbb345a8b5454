"""An API, one worker's upkeep, and a server of feeds on this machine that answers as it is told.
Import ``feeds_fixture`` into a test module to have the fixture ``feeds`` there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.doorbell import Ringer
from shared.egress import parse_allowed
from shared.lifecycle import working
from shared.lifecycle.working import RunClaim
from tests.integration.api_case import MODEL
from tests.integration.production_case import Press
from worker.egress import Egress
from worker.upkeep.feeds_reading import SourceReader
from worker.upkeep.monitors import Monitors
from worker.upkeep.schedules import ScheduleRuns

SCHEDULES = "/v1/schedules"
MONITORS = "/v1/monitors"
MOST_FAILURES = 3
TEMPLATE = "Praise {{ title }}"


def rss(*titles: str) -> bytes:
    """A feed with an item for each title."""
    items = "".join(
        f"<item><guid>id-{title}</guid><title>{title}</title>"
        f"<description>&lt;p&gt;about {title}&lt;/p&gt;</description></item>"
        for title in titles
    )
    return f'<?xml version="1.0"?><rss version="2.0"><channel>{items}</channel></rss>'.encode()


class FeedServer:
    """Answers every GET with ``body``; with ``etag`` it says `unchanged` to whoever knows that."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.etag: str | None = None
        self.location: str | None = None
        self.asked: list[dict[str, str]] = []
        case = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                case.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/feed"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append(headers)
        known = self.etag is not None and headers.get("if-none-match") == self.etag
        status = 304 if known else self.status
        body = b"" if status == 304 else self.body
        handler.send_response(status)
        if self.etag is not None:
            handler.send_header("ETag", self.etag)
        if self.location is not None:
            handler.send_header("Location", self.location)
        if status != 304:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


class FeedCase(Press):
    """Every call is its own transaction."""

    def __init__(self, url: str, folder: Path) -> None:
        self.server = FeedServer()
        self.roots = {"drop": folder / "drop"}
        self.roots["drop"].mkdir()
        super().__init__(
            url,
            folder,
            feed_allowed_hosts=self.server.host,
            feed_folders=f"drop={self.roots['drop']}",
        )
        egress = Egress(allowed=parse_allowed(self.server.host), timeout_seconds=60.0)
        self.reader = SourceReader(egress, self.roots, max_bytes=2**20)
        common = (self.engine, self.services.store, Ringer(""), self.reader)
        self.runs = ScheduleRuns(*common, window=64, most_failures=MOST_FAILURES)
        self.monitors = Monitors(*common, window=64)

    def close(self) -> None:
        self.server.close()
        super().close()

    def sql(self, statement: str, **values: Any) -> list[Any]:
        with self.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    @property
    def tenant_id(self) -> str:
        """Of ``key``, while there is one tenant."""
        return str(self.sql("SELECT id FROM tenants ORDER BY id LIMIT 1")[0].id)

    # --- schedules ------------------------------------------------------------------------------

    def schedule(self, **changed: Any) -> str:
        body = {
            "name": "news",
            "template": TEMPLATE,
            "source": {"url": self.server.url},
            "every": "day",
            "model": MODEL,
        }
        reply = self.post(SCHEDULES, body | changed)
        assert reply.status_code == 200, reply.json
        return str(reply.json["id"])

    def look(self, schedule_id: str) -> dict[str, Any]:
        return dict(self.get(f"{SCHEDULES}/{schedule_id}").json)

    def history(self, schedule_id: str) -> list[dict[str, Any]]:
        """Its runs, oldest first."""
        found = self.get(f"{SCHEDULES}/{schedule_id}/runs?limit=100").json["data"]
        return list(reversed(found))

    def due(self, schedule_id: str, ago: str = "1 second") -> None:
        """Time passes, until it is due so long ago."""
        self.sql(
            "UPDATE schedules SET next_run_at = clock_timestamp() - CAST(:ago AS interval)"
            " WHERE id = :id",
            id=schedule_id,
            ago=ago,
        )

    def lease_ends(self) -> None:
        """Whoever reads has not come back for a while."""
        self.sql(
            "UPDATE schedule_runs SET lease_until = clock_timestamp() - interval '1 s'"
            " WHERE lease_until IS NOT NULL"
        )

    def run_due(self) -> RunClaim:
        """The run that is due, as far as to its production."""
        claim = self.runs.begin()
        assert claim is not None
        self.runs.run(claim)
        return claim

    def run_whole(self) -> None:
        """The run that is due, its production, and its end."""
        self.run_due()
        self.run()
        self.runs.close()

    def titles(self, run: dict[str, Any]) -> list[str]:
        """What the run's production was made of."""
        lines = self.lines(run["production_id"])
        return [line["title"] for line in lines]

    def pretend_lost(self, claim: RunClaim) -> None:
        with self.begin() as connection:
            assert not working.hold_run(connection, claim)


@pytest.fixture(name="feeds")
def feeds_fixture(database_url: str, tmp_path: Path) -> Iterator[FeedCase]:
    case = FeedCase(database_url, tmp_path)
    yield case
    case.close()
