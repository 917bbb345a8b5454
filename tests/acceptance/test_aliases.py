"""Aliases in a whole plant: a batch keeps its version whatever happens, and a gate decides by what
workers measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.plant import Plant, chat_row, plant, wait_until

NAME = "writer@production"
ROWS = 24


def test_a_batch_uses_one_version_whatever_happens(tmp_path: Path, database_url: str) -> None:
    with plant(tmp_path / "plant", database_url, settings={"POLL_SECONDS": "0.2"}) as running:
        running.start(workers=0)
        with running.http() as http:
            made = http.post("/v1/model_aliases", json={"name": NAME, "model": "fake-slow"})
            assert made.status_code == 201
            batch_id = running.submit_batch([chat_row(n, model=NAME) for n in range(ROWS)])
            batch = f"/v1/batches/{batch_id}"
            wait_until(lambda: http.get(batch).json()["status"] == "in_progress", 60)
            assert http.get(batch).json()["models"] == {NAME: "fake-slow"}

            running.start_worker("first", "text")
            wait_until(lambda: held_slices(running, batch_id) > 0, 60)
            running.processes["first"].kill()
            moved = http.post(f"/v1/model_aliases/{NAME}", json={"model": "fake"})
            assert moved.json()["model"] == "fake"
            running.start_worker("second", "text")

            results = running.results(running.wait_batch(batch_id))
            assert len(results) == ROWS
            assert {row["response"]["body"]["model"] for row in results.values()} == {"fake-slow"}
            used = "SELECT string_agg(DISTINCT model, ',') FROM usage WHERE job_id = :id"
            assert running.scalar(used, id=batch_id) == "fake-slow"
            assert http.get(batch).json()["models"] == {NAME: "fake-slow"}
            epochs = "SELECT max(epoch) FROM shards WHERE job_id = :id AND stage = 'generate'"
            assert running.scalar(epochs, id=batch_id) > 1  # the killed worker had begun

            direct = running.client().chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": "hello"}]
            )
            assert direct.model == "fake"


def test_a_gate_decides_by_what_a_worker_measures(tmp_path: Path, database_url: str) -> None:
    with plant(tmp_path / "plant", database_url, settings={"POLL_SECONDS": "0.2"}) as running:
        running.start(workers=1, pools="train")
        turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
        examples = (json.dumps({"messages": turns}) + "\n").encode() * 12
        file = running.client().files.create(file=("held-out.jsonl", examples), purpose="evals")
        with running.http() as http:
            http.post("/v1/model_aliases", json={"name": NAME})
            terms = {"evaluation_file": file.id, "metric": "loss"}
            for candidate in ("fake", "fake-slow"):
                asked = {"model": candidate, "gate": terms}
                begun = http.post(f"/v1/model_aliases/{NAME}", json=asked).json()
                evaluation = f"/v1/evaluations/{begun['gate_job_id']}"
                wait_until(lambda path=evaluation: http.get(path).json()["ended_at"], 90)
            first, second = history(http.get(f"/v1/model_aliases/{NAME}/history").json())
            assert (first["to_model"], first["outcome"], first["from_model"]) == (
                "fake",
                "moved",
                None,
            )
            found = second["evaluation"]
            better = found["candidate_value"] < found["holder_value"]
            assert second["outcome"] == ("moved" if better else "kept")
            holder = http.get(f"/v1/model_aliases/{NAME}").json()["model"]
            assert holder == ("fake-slow" if better else "fake")
            gate = http.get(evaluation).json()["gate"]
            assert gate["outcome"] == second["outcome"]
            assert gate["candidate_value"] == found["candidate_value"]


def history(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Oldest first."""
    moves: list[dict[str, Any]] = page["data"]
    return moves[::-1]


def held_slices(running: Plant, batch_id: str) -> int:
    slices = "SELECT count(*) FROM shards WHERE job_id = :id AND stage = 'generate'"
    return int(running.scalar(f"{slices} AND state = 'running'", id=batch_id))
