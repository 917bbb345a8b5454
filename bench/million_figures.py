"""A batch of a million rows by OpenAI's client, its results read while it runs."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openai

from bench.batch_figures import _peak_mb, _process
from bench.batches import ENDED, BatchFailed, write_rows
from bench.report import Measurement
from bench.rig import Rig, api_workers
from tests.plant import Plant, wait_until

FEW, MANY, QUICK = 10_000, 1_000_000, 40_000
BATCH_SECONDS = 3_600.0
LOOK_SECONDS = 0.5
PAGE_LINES = 10_000


class Once:
    """Which of so many rows were seen: a byte a row. Raises BatchFailed at the second time."""

    def __init__(self, rows: int) -> None:
        self._seen = bytearray(rows)
        self.n = 0

    def note(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            row = json.loads(line)
            number = int(row["custom_id"].removeprefix("row-"))
            if self._seen[number] or row["error"] is not None:
                raise BatchFailed(f"row {number} came twice, or failed: {row['error']}")
            self._seen[number] = 1
            self.n += 1

    def require_all(self, what: str) -> None:
        if self.n != len(self._seen):
            raise BatchFailed(f"{self.n} of {len(self._seen)} rows in {what}")


@dataclass
class Follower:
    """Reads the lines of a batch as they come, on a thread of its own."""

    plant: Plant
    batch_id: str
    once: Once
    ended: threading.Event = field(default_factory=threading.Event)
    lines_before_end: int = 0
    first_line_seconds: float | None = None
    error: BaseException | None = None

    def run(self) -> None:
        began, after = time.monotonic(), None
        try:
            with self.plant.http() as http:
                while True:
                    asked = {"limit": PAGE_LINES} | ({"after": after} if after else {})
                    path = f"/v1/batches/{self.batch_id}/results"
                    reply = http.get(path, params=asked).raise_for_status()
                    lines = reply.content.splitlines()
                    self.once.note(lines)
                    after = reply.headers.get("x-next-after", after)
                    if lines and self.first_line_seconds is None:
                        self.first_line_seconds = time.monotonic() - began
                    if not self.ended.is_set():
                        self.lines_before_end = self.once.n
                    if reply.headers.get("x-incomplete") != "true":
                        return
                    if not lines:
                        time.sleep(LOOK_SECONDS)
        except BaseException as error:  # handed to the thread that waits for this one
            self.error = error


def million_rows(rig: Rig) -> Measurement:
    """The worst growth of API, supervisor and upkeep, in one plant, by a batch of 10⁶ rows after
    one of 10⁴. Every row has to be in the output file once, and to be told once while it runs."""
    many = QUICK if rig.quick else MANY
    with rig.plant() as plant:
        plant.start()
        _run(plant, write_rows(rig.folder("input") / "input.jsonl", FEW), FEW)
        before = _peaks(plant)
        source = write_rows(rig.folder("input") / "input.jsonl", many)
        seconds, follower = _run(plant, source, many)
        after = _peaks(plant)
        shards = plant.scalar(
            "SELECT count(*) FROM shards WHERE job_id = :id", id=follower.batch_id
        )
    shutil.rmtree(plant.folder, ignore_errors=True)
    growth = {name: after[name] / before[name] for name in before}
    return Measurement(
        max(growth.values()),
        {
            "unit": "",
            "sides": growth,
            "peak_mb": {str(FEW): before, str(many): after},
            "rows": many,
            "seconds": seconds,
            "rows_per_second": many / seconds,
            "shards": shards,
            "lines_told_before_the_end": follower.lines_before_end,
            "first_line_seconds": follower.first_line_seconds,
        },
    )


def _run(plant: Plant, source: Path, count: int) -> tuple[float, Follower]:
    """From the upload to the end, in seconds; and who has read along. Raises BatchFailed."""
    client = plant.client(timeout=600)
    began = time.monotonic()
    with source.open("rb") as file:
        input_file = client.files.create(file=("input.jsonl", file), purpose="batch")
    source.unlink()
    batch = client.batches.create(
        input_file_id=input_file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    follower = Follower(plant, batch.id, Once(count))
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    output_file = _wait(client, follower)
    seconds = time.monotonic() - began
    follower.ended.set()
    thread.join(BATCH_SECONDS)
    if follower.error is not None:
        raise follower.error
    follower.once.require_all("what was told while it ran")
    written = Once(count)
    written.note(_lines_of(client, output_file))
    written.require_all("the output file")
    return seconds, follower


def _wait(client: openai.OpenAI, follower: Follower) -> str:
    """The id of the output file, once the batch has completed with every row."""

    def ended() -> bool:
        return follower.error is not None or (
            client.batches.retrieve(follower.batch_id).status in ENDED
        )

    wait_until(ended, BATCH_SECONDS, lambda: follower.batch_id, LOOK_SECONDS)
    if follower.error is not None:
        raise follower.error
    batch = client.batches.retrieve(follower.batch_id)
    if batch.status != "completed" or batch.output_file_id is None:
        raise BatchFailed(f"{batch.status}: {batch.request_counts}")
    return batch.output_file_id


def _lines_of(client: openai.OpenAI, file_id: str) -> Iterator[bytes]:
    with client.files.with_streaming_response.content(file_id) as response:
        for line in response.iter_lines():
            yield line.encode()


def _peaks(plant: Plant) -> dict[str, float]:
    """Peak megabytes of each kind of process until now."""
    return {
        "api": max(_peak_mb(worker) for worker in api_workers(plant)),
        "supervisor": _peak_mb(_process(plant, "worker-0")),
        "upkeep": _peak_mb(_process(plant, "upkeep")),
    }
