"""A sweep of real trainings: a classifier on a tiny random model, the better rate found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.db.models import sync_catalog
from shared.doorbell import Ringer
from shared.ids import new_file_id
from shared.models_catalog import ModelEntry
from shared.states import JobState
from tests.integration.protocol import TENANT
from tests.integration.search_case import Search
from tests.integration.text_recipe_case import tiny_bert
from tests.integration.training_case import Worker
from worker.upkeep.sweeps_pass import SweepPass

TEXTS = {
    "animal": ["the quick fox", "a lazy dog", "quick brown dog jumps", "fox over lazy dog"],
    "water": ["old boats to the sea", "seven rivers", "rivers carry boats", "seven old boats"],
}
ENDS = ["and so on", "while said", "until every word", "over and over", "a while"]
GOOD, BAD = 2e-3, 1e-6


@pytest.fixture
def search(database_url: str, tmp_path: Path) -> Iterator[Search]:
    search = Search(database_url, tmp_path / "a store")
    base = tiny_bert(tmp_path / "tiny bert")
    with search.engine.begin() as connection:
        sync_catalog(connection, [ModelEntry(id="tiny", engine="embedding", source=str(base))])
    yield search
    search.close()


def upload(search: Search) -> str:
    lines = [
        json.dumps({"text": f"{text} {end}", "label": label}) + "\n"
        for end in ENDS
        for label, texts in TEXTS.items()
        for text in texts
    ]
    file_id = new_file_id()
    key = f"t/{TENANT}/f/{file_id}"
    stored = search.store.put_bytes(key, "".join(lines).encode(), media_type="application/jsonl")
    search.sql(
        "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
        " VALUES (:id, :tenant, 'train.jsonl', 'fine-tune', :bytes, :sha256, :key)",
        id=file_id,
        tenant=TENANT,
        bytes=stored.bytes,
        sha256=stored.sha256,
        key=key,
    )
    return file_id


@pytest.mark.slow
def test_the_rate_that_learns_is_found_and_its_model_delivered(
    search: Search, tmp_path: Path
) -> None:
    numbers = {"precision": "fp32", "batch_size": 8, "max_steps": 12, "n_epochs": 50}
    recipe = "text_classification"
    method = {"type": recipe, recipe: {"hyperparameters": numbers}}
    spec = {"model": "tiny", "training_file": upload(search), "method": method}
    job_id = search.submit(
        spec=spec | {"validation_split": 0.3, "evaluation": {"every_steps": 4}},
        trials=2,
        space={"learning_rate": {"choices": [BAD, GOOD]}},
        metric="valid_accuracy",
        direction="maximize",
    )
    worker = Worker(search, search.store, tmp_path / "w", "w1")
    passing = SweepPass(search.engine, Ringer(""))
    try:
        for _ in range(2):
            search.decide()
            worker.run()
            passing.run()
        search.decide()
    finally:
        worker.desk.close()
    job, trials = search.job(job_id), search.trials(job_id)
    assert job.state == JobState.SUCCEEDED, [trial.error_message for trial in trials]
    values = {trial.params["learning_rate"]: trial.value for trial in trials}
    assert values[GOOD] >= 0.9 > values[BAD]
    assert job.result["best"]["params"] == {"learning_rate": GOOD}
    assert all(len(trial.evaluations) >= 3 for trial in trials)
    (row,) = search.sql(
        "SELECT files, engine FROM models WHERE id = :id", id=job.result["fine_tuned_model"]
    )
    assert row.engine == "classifier"
    for file in row.files:
        assert len(b"".join(search.store.read(file["key"]))) == file["bytes"]
