"""From a few examples to a trained model in a whole plant, with the fake engine: the command, and
an unmodified ``openai`` client that takes its file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from pressrun.main import main
from tests.plant import FAST, ROOT, Plant, plant, wait_until

TICKETS = ROOT / "examples" / "augment" / "tickets.jsonl"
PATIENCE_SECONDS = 300.0


@pytest.fixture
def running(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Plant]:
    with plant(tmp_path / "a plant", database_url, broker_url, models=[FAST]) as made:
        yield made.start()


def test_synthetic_rows_train_a_model(running: Plant, tmp_path: Path) -> None:
    """No text of the fake engine is refused: 30 words are not too long for any of the rows."""
    output = tmp_path / "train.jsonl"
    with pytest.raises(SystemExit) as left:
        main(
            [
                *("augment", str(TICKETS), "--model", "fake", "--output", str(output)),
                *("--labels", "delivery=10,refund=10,product=5", "--held-out", "0.2"),
                *("--max-tokens", "30", "--url", running.url, "--api-key", running.api_key),
            ]
        )
    assert not left.value.code
    rows, held_out = _rows(output), _rows(tmp_path / "train.held-out.jsonl")
    assert _labels(rows) == {"delivery": 8, "refund": 8, "product": 4}
    assert _labels(held_out) == {"delivery": 2, "refund": 2, "product": 1}
    assert all(row["metadata"]["synthetic"] for row in rows + held_out)

    client = running.client()
    with output.open("rb") as file:
        training = client.files.create(file=file, purpose="fine-tune").id
    with running.http() as http:
        [production] = http.get("/v1/productions").json()["data"]
    for file_id in (training, production["output_file_id"]):
        job = _tuned(client, file_id)
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model


def _tuned(client: openai.OpenAI, file_id: str) -> Any:
    """Trains on the file; returns the job when it has ended."""
    job = client.fine_tuning.jobs.create(
        model="fake",
        training_file=file_id,
        extra_body={"method": {"type": "text_classification"}},
    )

    def look() -> Any:
        return client.fine_tuning.jobs.retrieve(job.id)

    ended = {"succeeded", "failed", "cancelled"}
    wait_until(lambda: look().status in ended, PATIENCE_SECONDS, lambda: look().to_json())
    return look()


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _labels(rows: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(row["label"] for row in rows))
