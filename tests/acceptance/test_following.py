"""Results are followed, and files sent in parts, while processes are killed."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.plant import Plant, chat_row, plant, wait_until

ROWS = 800
"""Several slices, of two seconds each."""
PART_BYTES = 2**20


@pytest.fixture
def running(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Plant]:
    with plant(tmp_path / "plant", database_url, broker_url) as made:
        yield made.start(workers=2, pools="text")


class Follower(threading.Thread):
    """Reads a batch's results to their end, wherever the API is."""

    def __init__(self, running: Plant, batch_id: str) -> None:
        super().__init__(daemon=True)
        self._running = running
        self._path = f"/v1/batches/{batch_id}/results"
        self.lines: list[str] = []
        self.while_it_ran = 0

    def run(self) -> None:
        after: dict[str, str] = {}
        with self._running.http() as http:
            while True:
                try:
                    answer = http.get(self._path, params={"limit": "100", **after})
                    answer.raise_for_status()
                except httpx2.HTTPError:
                    time.sleep(0.1)
                    continue
                self.lines += [json.loads(line)["custom_id"] for line in answer.text.splitlines()]
                after = {"after": answer.headers["X-Next-After"]}
                if answer.headers["X-Incomplete"] == "false":
                    return
                self.while_it_ran = len(self.lines)
                if not answer.content:
                    time.sleep(0.05)


def test_each_line_comes_once_though_workers_upkeep_and_api_are_killed(running: Plant) -> None:
    batch_id = running.submit_batch([chat_row(n, model="fake-slow") for n in range(ROWS)])
    follower = Follower(running, batch_id)
    follower.start()
    wait_until(lambda: len(follower.lines) > 0, 60, lambda: str(running.client().batches.list()))
    for name in ("worker-0", "upkeep", "api"):
        running.processes[name].kill()
        running.restart(name)
    running.wait_ready()
    batch = running.wait_batch(batch_id)
    follower.join(60)
    assert not follower.is_alive()
    assert batch.status == "completed"
    assert sorted(follower.lines) == sorted(f"row-{n}" for n in range(ROWS))
    assert follower.while_it_ran > 0


def test_an_unmodified_client_uploads_a_file_in_parts(running: Plant, tmp_path: Path) -> None:
    line = json.dumps(chat_row(0, "hello " * 100)).encode()
    rows = [line.replace(b"row-0", b"row-%d" % n) for n in range(4_000)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(rows))
    data = path.read_bytes()
    client = running.client()
    upload = client.uploads.upload_file_chunked(
        file=path,
        mime_type="application/jsonl",
        purpose="batch",
        part_size=PART_BYTES,
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )
    assert (upload.status, upload.bytes) == ("completed", len(data))
    assert len(data) > 2 * PART_BYTES
    assert upload.file is not None
    assert client.files.content(upload.file.id).content == data
    batch = client.batches.create(
        input_file_id=upload.file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
    )
    assert running.wait_batch(batch.id).status == "completed"
    assert running.scalar("SELECT count(*) FROM upload_parts") > 2
