"""Running one batch through a plant's API, from upload to the last row, and timing its phases."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import text

from tests.plant import Plant, wait_until

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
LOOK_SECONDS = 0.5
UPLOAD_SECONDS = 600.0

_MOMENTS = text("""
SELECT extract(epoch FROM created_at)::float8 AS created,
       extract(epoch FROM in_progress_at)::float8 AS in_progress,
       extract(epoch FROM finalizing_at)::float8 AS finalizing,
       extract(epoch FROM ended_at)::float8 AS ended,
       output_tokens AS tokens, rows_completed AS rows_completed
  FROM jobs WHERE id = :id
""")


class BatchFailed(Exception):
    """A batch ended otherwise than with every row completed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that completed."""

    id: str
    output_file_id: str
    rows: int
    tokens: int
    """New tokens that its rows really generated."""
    seconds: float
    """From before the upload of its input to the end that the database recorded."""
    phases: dict[str, float]


def run_batch(
    plant: Plant, path: Path, timeout_seconds: float, *, endpoint: str = "/v1/chat/completions"
) -> Batch:
    """Uploads ``path``, submits it and waits for its end. Raises BatchFailed or PlantError.

    ``endpoint`` may be ``/v1/*``: each row names its own.
    """
    began = time.time()
    with plant.http() as http:
        with path.open("rb") as file:
            uploaded = http.post(
                "/v1/files",
                data={"purpose": "batch"},
                files={"file": ("input.jsonl", file)},
                timeout=UPLOAD_SECONDS,
            ).raise_for_status()
        asked = {
            "input_file_id": uploaded.json()["id"],
            "endpoint": endpoint,
            "completion_window": "24h",
        }
        batch_id = http.post("/v1/batches", json=asked).raise_for_status().json()["id"]
        batch = _wait(http, batch_id, timeout_seconds)
    counts = batch["request_counts"]
    if batch["status"] != "completed" or counts["failed"]:
        raise BatchFailed(f"{batch['status']}: {counts}; {_first_error(plant, batch)}")
    return _timed(plant, batch, began)


def _first_error(plant: Plant, batch: dict[str, Any]) -> str:
    """What the first row that failed says, or the first bad line of a batch that was rejected."""
    if batch["error_file_id"] is None:
        return str(batch["errors"])[:500]
    with plant.http() as http:
        path = f"/v1/files/{batch['error_file_id']}/content"
        line = json.loads(http.get(path, follow_redirects=True).text.splitlines()[0])
    return str(line["error"] or line["response"]["body"])[:500]


def _wait(http: httpx2.Client, batch_id: str, timeout_seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(http.get(f"/v1/batches/{batch_id}").raise_for_status().json())
        return found["status"] in ENDED

    wait_until(ended, timeout_seconds, lambda: str(found), LOOK_SECONDS)
    return found


def _timed(plant: Plant, batch: dict[str, Any], began: float) -> Batch:
    with plant.engine.connect() as connection:
        moments = connection.execute(_MOMENTS, {"id": batch["id"]}).one()
    return Batch(
        id=str(batch["id"]),
        output_file_id=str(batch["output_file_id"]),
        rows=moments.rows_completed,
        tokens=moments.tokens,
        seconds=moments.ended - began,
        phases={
            "upload": moments.created - began,
            "validation": moments.in_progress - moments.created,
            "generation": moments.finalizing - moments.in_progress,
            "assembly": moments.ended - moments.finalizing,
        },
    )


def result_lines(plant: Plant, batch: Batch) -> Iterator[bytes]:
    """The lines of the output file, downloaded through the API as a stream."""
    path = f"/v1/files/{batch.output_file_id}/content"
    with plant.http() as http, http.stream("GET", path, follow_redirects=True) as response:
        response.raise_for_status()
        rest = b""
        for chunk in response.iter_bytes():
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            raise BatchFailed("the output file's last line has no end")


def write_rows(path: Path, count: int) -> Path:
    """An input file of short chat rows for the fake engine; never all in memory."""
    with path.open("w") as file:
        for number in range(count):
            row = {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "fake",
                    "messages": [{"role": "user", "content": f"hello {number}"}],
                    "max_tokens": 8,
                },
            }
            file.write(json.dumps(row) + "\n")
    return path
