"""An unmodified ``openai`` client runs a batch through a real model, upload to download."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.models_catalog import ModelEntry
from tests.plant import ROOT, Plant, plant

PRODUCTS = ["a folding bicycle", "a bamboo toothbrush", "a wool scarf", "a solar lamp"]


@pytest.fixture
def running(
    tmp_path: Path, database_url: str, broker_url: str, models_dir: Path
) -> Iterator[Plant]:
    models = (
        ModelEntry(
            id="smollm2-135m-instruct",
            engine="text",
            source=str(models_dir / "SmolLM2-135M-Instruct"),
        ),
        ModelEntry(
            id="all-minilm-l6-v2", engine="embedding", source=str(models_dir / "all-MiniLM-L6-v2")
        ),
        ModelEntry(id="fluent-emoji", engine="image", source=str(models_dir / "fluent-emoji")),
        ModelEntry(id="hibari", engine="speech", source="hibari"),
    )
    with plant(tmp_path / "plant", database_url, broker_url, models=models) as made:
        yield made.start()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_batch_of_ads(running: Plant) -> None:
    client = running.client(_strict_response_validation=True)
    lines = [
        {
            "custom_id": f"ad-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "smollm2-135m-instruct",
                "messages": [{"role": "user", "content": f"Write one sentence to sell {product}."}],
                "max_completion_tokens": 24,
                "temperature": 0,
            },
        }
        for number, product in enumerate(PRODUCTS)
    ]
    data = "\n".join(json.dumps(line) for line in lines).encode()

    file = client.files.create(file=("ads.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    ended = running.wait_batch(batch.id, 300)

    assert ended.status == "completed", running.processes["worker-0"].log()[-4000:]
    assert ended.output_file_id is not None
    assert ended.error_file_id is None
    results = running.results(ended)
    assert set(results) == {f"ad-{number}" for number in range(len(PRODUCTS))}
    for row in results.values():
        [choice] = row["response"]["body"]["choices"]
        assert len(choice["message"]["content"].split()) >= 5
        assert row["response"]["body"]["usage"]["completion_tokens"] <= 24
    assert ended.usage is not None
    assert ended.usage.output_tokens > 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_batch_of_embeddings(running: Plant) -> None:
    texts = ["A bicycle for the city", "A bike for town", "Interest rates rose on Tuesday"]
    rows = [
        {
            "custom_id": f"text-{number}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": "all-minilm-l6-v2", "input": content},
        }
        for number, content in enumerate(texts)
    ]
    ended = running.wait_batch(running.submit_batch(rows, endpoint="/v1/embeddings"), 300)

    results = running.results(ended)
    bicycle, bike, rates = (
        results[f"text-{number}"]["response"]["body"]["data"][0]["embedding"] for number in range(3)
    )
    assert _similarity(bicycle, bike) > _similarity(bicycle, rates) + 0.2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_single_job(running: Plant) -> None:
    body = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 16,
        "temperature": 0,
    }
    with running.http() as http:
        accepted = http.post("/v1/jobs", json={"endpoint": "/v1/chat/completions", "body": body})
        assert accepted.status_code == 202
        job = accepted.json()
        for _ in range(10):
            job = http.get(accepted.headers["location"], params={"wait": 20}).json()
            if job["state"] not in {"queued", "running"}:
                break
    assert job["state"] == "succeeded", job
    assert "Paris" in job["result"]["choices"][0]["message"]["content"]
    assert job["usage"]["output_tokens"] == job["result"]["usage"]["completion_tokens"]


def _similarity(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readmes_client_runs_as_printed(running: Plant, tmp_path: Path) -> None:
    [snippet] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / ".pressrun").mkdir()
    (tmp_path / ".pressrun" / "api-key").write_text(running.api_key)
    row = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "smollm2-135m-instruct",
            "max_tokens": 8,
            "messages": [{"role": "user", "content": "Say hi"}],
        },
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    code = snippet.replace("http://127.0.0.1:8080", running.url)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "BatchRequestCounts(" in done.stdout
    assert (tmp_path / "morning.mp3").stat().st_size > 4_000
    batch_id = running.client().batches.list().data[0].id
    assert running.wait_batch(batch_id, 300).status == "completed"
