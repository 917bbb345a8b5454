"""An API whose batches and uploads go through the real work of upkeep, in this process; slices are
ended by hand. Import ``hall_fixture`` into a test module to have the fixture ``hall`` there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.db.session import autocommit
from shared.doorbell import Ringer
from shared.lifecycle import working
from shared.lifecycle.working import Claim, SliceEnd, UsageLine
from shared.states import ShardState
from tests.integration.api_case import MODEL, PATIENCE_SECONDS, ApiCase, make_settings
from tests.live_session import LiveSession
from worker.outputs import response_line, store_lines
from worker.rows import read_slice
from worker.upkeep.chores import UpkeepChores

ENDPOINT = "/v1/completions"


def row(number: int, prompt: str = "hello", **body: Any) -> bytes:
    """A line of an input file."""
    called = {"model": MODEL, "prompt": prompt, "max_tokens": 7} | body
    line = {"custom_id": f"row-{number}", "method": "POST", "url": ENDPOINT, "body": called}
    return json.dumps(line).encode() + b"\n"


class Hall(ApiCase):
    """The API, and one worker's upkeep."""

    def __init__(self, url: str, folder: Path, **changed: Any) -> None:
        super().__init__(make_settings(url, folder, key_cache_seconds=60, **changed))
        with self.begin() as connection:
            self.me = self.open_session(connection)
        self.chores = UpkeepChores(
            self.engine,
            self.services.store,
            LiveSession(),  # type: ignore[arg-type]
            Ringer(""),
            on_closed=lambda _: None,
            max_rows=100_000,
            max_line_bytes=2**20,
            max_reported=100,
        )

    def close(self) -> None:
        self.chores.close()
        super().close()

    def claim(self, pool: str, shards: int = 1) -> list[Claim]:
        with self.begin() as connection:
            working.dispatch(connection, pool=pool, window=64)
        with autocommit(self.engine) as connection:
            return working.claim(
                connection, session_id=self.me, pools=[pool], max_shards=shards, max_rows=10**6
            )

    def upkeep(self) -> bool:
        """Runs the next shard of upkeep to its end; false when there is none."""
        claims = self.claim("upkeep")
        for claim in claims:
            self.chores.begin(claim, self.me)
        until(lambda: self.chores.idle)
        return bool(claims)

    @contextmanager
    def upkeep_running(self) -> Iterator[None]:
        """Upkeep takes whatever comes during the block."""
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                if not self.upkeep():
                    over.wait(0.02)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(PATIENCE_SECONDS)

    # --- batches ------------------------------------------------------------------------------

    def batch(self, lines: bytes, **changed: Any) -> str:
        """A batch over these lines, which are not validated yet."""
        file_id = self.upload(lines).json["id"]
        body = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "24h"}
        reply = self.post("/v1/batches", body | changed)
        assert reply.status_code == 200, reply.json
        return str(reply.json["id"])

    def look(self, batch_id: str) -> dict[str, Any]:
        return dict(self.get(f"/v1/batches/{batch_id}").json)

    def end_slice(self, claim: Claim, failing: frozenset[str] = frozenset()) -> None:
        """Every row has a line; those of these custom ids an error."""
        good, bad = [], []
        for line in read_slice(self.services.store, claim):
            if line.custom_id in failing:
                error = {"message": "no\x00 \u2028 good", "type": "x", "param": None, "code": "no"}
                bad.append(response_line(claim.job_id, line, 400, dumped({"error": error})))
            else:
                bulk = {"id": line.custom_id, "text": "x" * 20}
                good.append(response_line(claim.job_id, line, 200, dumped(bulk)))
        store = self.services.store
        end = SliceEnd(
            claim.held,
            ShardState.SUCCEEDED,
            store_lines(store, claim, "output.jsonl", good),
            store_lines(store, claim, "errors.jsonl", bad),
            len(good),
            len(bad),
            [UsageLine(ENDPOINT, MODEL, len(good), 3 * len(good), 5 * len(good))],
        )
        with self.begin() as connection:
            assert working.finish_slice(connection, self.me, end)

    def ended_batch(self, lines: bytes, failing: frozenset[str] = frozenset()) -> str:
        batch_id = self.batch(lines)
        assert self.upkeep()
        for claim in self.claim("text", 1_000):
            self.end_slice(claim, failing)
        assert self.upkeep()
        return batch_id

    def input_of(self, batch_id: str) -> bytes:
        return self.content(self.look(batch_id)["input_file_id"])

    def content(self, file_id: str) -> bytes:
        found = self.get(f"/v1/files/{file_id}/content")
        return self.client.get(found.headers["Location"]).data


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(name="hall")
def hall_fixture(database_url: str, tmp_path: Path) -> Iterator[Hall]:
    case = Hall(database_url, tmp_path)
    yield case
    case.close()
