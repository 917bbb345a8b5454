"""A tiny model goes all the way: measured and made smaller by a worker's process tree, stored,
fetched by name, and served by the engine that serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.db.models import models_by_id, sync_catalog
from shared.models_catalog import ModelEntry
from shared.states import JobState
from tests.integration.model_job_case import FLOAT, writer
from tests.integration.model_job_hall import INT8, ModelHall
from tests.integration.tiny_models import chat, load, run
from worker.model_files import ModelFiles
from worker.recipes.optimizing_looks import ROUNDS

TINY = "tiny"


@pytest.fixture
def hall(database_url: str, tmp_path: Path) -> Iterator[ModelHall]:
    hall = ModelHall(database_url, tmp_path / "a hall")
    source = writer(tmp_path / "tiny model")
    entry = ModelEntry(id=TINY, engine="text", source=str(source), settings=FLOAT)
    with hall.plant.engine.begin() as connection:
        sync_catalog(connection, [entry])
    yield hall
    hall.close()


def test_a_smaller_model_is_made_and_served_by_its_name(hall: ModelHall, tmp_path: Path) -> None:
    worker = hall.worker()
    made = hall.optimization(model=TINY, method=INT8)
    worker.run()
    job = hall.plant.job(made)
    assert job.state == JobState.SUCCEEDED, job.error_message
    name = job.result["model"]
    costs = job.result["costs"]
    assert costs["weights_bytes"]["after"] < costs["weights_bytes"]["before"]
    assert costs["tokens_per_second_alone"]["after"] > 0
    assert ROUNDS > 1  # what is told is a median
    assert job.result["quality"]["loss"]["after"] > 0
    assert len(job.result["result_files"]) == 2

    with hall.plant.engine.connect() as connection:
        model = models_by_id(connection, [name])[name]
    assert (model.engine, model.pool, model.settings) == ("text", "text", FLOAT)
    assert model.bytes < costs["disk_bytes"]["before"]
    folder = ModelFiles(hall.store, tmp_path / "cache").local(model)
    bodies = run(
        load(folder), [chat(number, "the sea", temperature=0, max_tokens=5) for number in range(3)]
    )
    answers = {body["choices"][0]["message"]["content"] for body in bodies.values()}
    assert len(answers) == 1
    assert all(body["usage"]["completion_tokens"] > 0 for body in bodies.values())

    measured = hall.evaluation(models=[TINY, name], metric="loss")
    worker.run()
    job = hall.plant.job(measured)
    assert job.state == JobState.SUCCEEDED, job.error_message
    before, after = (item["value"] for item in job.result["models"])
    assert after == pytest.approx(before, rel=0.02)
    assert list(worker.folder.iterdir()) == []
