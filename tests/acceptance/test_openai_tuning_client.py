"""An unmodified ``openai`` client tunes a real model: upload, create, events, checkpoints, a batch
with what came out, delete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from shared.models_catalog import ModelEntry
from tests.plant import ROOT, Plant, plant, wait_until

BASE = "smollm2-135m-instruct"
DATA = ROOT / "tests" / "data" / "tuning" / "house_style.jsonl"
EXAMPLES = 24
STEPS = 4
PATIENCE_SECONDS = 400.0


@pytest.fixture
def running(
    tmp_path: Path, database_url: str, broker_url: str, models_dir: Path
) -> Iterator[Plant]:
    source = str(models_dir / "SmolLM2-135M-Instruct")
    base = ModelEntry(id=BASE, engine="text", source=source)
    with plant(tmp_path / "plant", database_url, broker_url, models=[base]) as made:
        yield made.start()


def row(custom_id: str, model: str) -> bytes:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "An ad line for our garden bench, please."}],
        "max_tokens": 16,
        "temperature": 0,
    }
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line).encode() + b"\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_upload_to_a_batch_and_delete(running: Plant) -> None:
    client = running.client(_strict_response_validation=True)
    lines = DATA.read_bytes().splitlines(keepends=True)[:EXAMPLES]
    file = client.files.create(file=("house_style.jsonl", b"".join(lines)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file.id,
        suffix="house-style",
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
        extra_body={
            "hyperparameters": None,
            "checkpoints": {"every_steps": 2},
            "evaluation": {"generate": 2},
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": {"max_steps": STEPS, "batch_size": 4}},
            },
        },
    )
    assert job.status == "validating_files"

    def ended() -> bool:
        return client.fine_tuning.jobs.retrieve(job.id).status in {
            "succeeded",
            "failed",
            "cancelled",
        }

    wait_until(ended, PATIENCE_SECONDS, running.processes["worker-0"].log)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    tuned = job.fine_tuned_model
    assert tuned is not None
    assert tuned.startswith(f"ft:{BASE}:")
    assert ":house-style:" in tuned
    assert job.trained_tokens is not None
    assert job.trained_tokens > 100

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))
    assert len({event.id for event in events}) == len(events) > 3
    assert events == sorted(events, key=lambda event: event.created_at, reverse=True)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [STEPS, 2]
    names = {client.files.retrieve(each).filename for each in job.result_files}
    assert {"report.md", "metrics.csv", "loss.png"} <= {name.split("_")[-1] for name in names}

    models = {"base": BASE, "tuned": tuned, "step-2": checkpoints[1].fine_tuned_model_checkpoint}
    body = b"".join(row(custom_id, model) for custom_id, model in models.items())
    given = client.files.create(file=("ads.jsonl", body), purpose="batch")
    batch = client.batches.create(
        input_file_id=given.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    results = running.results(running.wait_batch(batch.id, 300))
    answered = {name: result["response"]["body"]["model"] for name, result in results.items()}
    assert answered == models

    assert tuned in {model.id for model in client.models.list()}
    assert client.models.delete(tuned).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(tuned)
