"""All rows of a batch mean by an alias who held it when the batch was validated, to the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.db.models import needed_by, sync_catalog
from shared.errors import ModelNotFound
from shared.lifecycle import aliases as alias_verbs
from shared.lifecycle import working
from shared.lifecycle.working import Claim, ReleaseReason
from shared.models_catalog import ModelEntry
from tests.integration.protocol import CHAT, TENANT, Plant
from tests.integration.test_graph_batches import MODELS, Work, chat, video
from tests.unit.worker.claims import answer
from worker.execution import ShardRun
from worker.rows import read_slice

NAME = "writer@production"
SECOND = ModelEntry(id="m2", engine="fake", endpoints=[CHAT])


@pytest.fixture
def work(database_url: str, tmp_path: Path) -> Iterator[Work]:
    plant = Plant(database_url)
    work = Work(plant, tmp_path)
    with plant.engine.begin() as connection:
        sync_catalog(connection, [*MODELS, SECOND])
    create(work, NAME, "m")
    yield work
    work.chores.close()
    plant.close()


def create(work: Work, name: str, model: str) -> None:
    with work.plant.engine.begin() as connection:
        alias_verbs.create_alias(connection, tenant_id=TENANT, name=name, model=model)


def move(work: Work, model: str, name: str = NAME) -> None:
    with work.plant.engine.begin() as connection:
        alias_verbs.move_alias(connection, tenant_id=TENANT, name=name, model=model)


def named(row: dict[str, Any], **members: str) -> dict[str, Any]:
    return row | {"body": row["body"] | members}


def run(work: Work, claim: Claim) -> list[str]:
    """A worker answers every row of a slice; the models that it was to give them to."""
    rows = read_slice(work.store, claim)
    shard = ShardRun(claim, "w1", rows)
    for row in rows:
        shard.take(answer(claim, row.index))
    with work.plant.engine.begin() as connection:
        assert working.finish_slice(connection, "w1", shard.end_slice(work.store))
    return [row.model for row in rows]


def next_slice(work: Work) -> Claim:
    work.plant.dispatch("text")
    return work.plant.claim_one(pools=["text"])


def test_an_alias_that_moves_after_validation_changes_nothing(work: Work) -> None:
    job_id = work.batch(*(named(chat(f"r{n}"), model=NAME) for n in range(3)), chat("direct"))
    assert work.upkeep() == ["validate"]
    move(work, "m2")
    assert work.plant.job(job_id).detail["models"] == {NAME: "m"}

    held = next_slice(work)
    work.plant.release("w1", held.held, ReleaseReason.ERROR, code="x", message="x")
    again = work.plant.claim_one(pools=["text"])  # another attempt reads the same
    assert run(work, again) == ["m"] * 4

    lines = work.to_the_end(job_id)
    assert len(lines) == 4
    rows = work.plant.sql("SELECT model, rows FROM usage WHERE job_id = :id", id=job_id)
    assert [tuple(row) for row in rows] == [("m", 4)]


def test_an_alias_that_moves_while_a_batch_is_validated_means_one_model(work: Work) -> None:
    """A worker reads the names, is lost, and the next one reads them anew: what is committed is
    what counts."""
    job_id = work.batch(named(chat("a"), model=NAME), named(chat("b"), model=NAME))
    claim = work.plant.claim_one(pools=["upkeep"])
    assert claim.stage == "validate"
    move(work, "m2")
    work.plant.release("w1", claim.held, ReleaseReason.PREEMPTED)
    assert work.upkeep() == ["validate"]
    move(work, "m")
    assert run(work, next_slice(work)) == ["m2", "m2"]
    assert work.plant.job(job_id).detail["models"] == {NAME: "m2"}


def test_rows_that_are_graphs_are_planned_with_the_same_models(work: Work) -> None:
    create(work, "films@x", "c")
    create(work, "voice@x", "s")
    job_id = work.batch(named(video("a"), model="films@x", speech_model="voice@x"))
    assert work.upkeep() == ["validate"]
    assert work.plant.job(job_id).detail["models"] == {"films@x": "c", "voice@x": "s"}
    more = [ModelEntry(id="c2", engine="composer"), ModelEntry(id="s2", engine="speech")]
    with work.plant.engine.begin() as connection:
        sync_catalog(connection, [*MODELS, SECOND, *more])
    move(work, "c2", "films@x")
    move(work, "s2", "voice@x")
    assert work.upkeep() == ["generate"]  # unfolded
    steps = work.plant.sql("SELECT endpoint, model, spec FROM steps WHERE job_id = :id", id=job_id)
    models = {row.endpoint: row.model for row in steps}
    assert models["/v1/audio/speech"] == "s"
    assert models["/v1/videos/compositions"] == "c"
    assert {row.spec["model"] for row in steps} == {"s", "c", "i"}
    assert work.to_the_end(job_id)["a"]["response"]["status_code"] == 200


def test_the_models_of_a_batch_stay_until_it_has_ended(work: Work) -> None:
    job_id = work.batch(named(chat("a"), model=NAME))
    work.upkeep()
    move(work, "m2")
    with work.plant.connection() as connection:
        assert needed_by(connection, TENANT, "m") == job_id
    run(work, next_slice(work))
    work.to_the_end(job_id)
    with work.plant.connection() as connection:
        assert needed_by(connection, TENANT, "m") is None


def test_a_model_that_is_deleted_before_the_validation_is_committed_is_not_counted_on(
    work: Work,
) -> None:
    work.batch(named(chat("a"), model=NAME))
    claim = work.plant.claim_one(pools=["upkeep"])
    move(work, "m2")
    work.plant.sql("UPDATE models SET deleted_at = now() WHERE id = 'm'")
    with pytest.raises(ModelNotFound), work.plant.engine.begin() as connection:
        working.finish_validation(connection, "w1", claim.held, slices=[], models={NAME: "m"})
    work.plant.release("w1", claim.held, ReleaseReason.ERROR, code="x", message="x")
    assert work.upkeep() == ["validate"]
    assert run(work, next_slice(work)) == ["m2"]


def test_aliases_that_serve_nothing_are_bad_lines(work: Work) -> None:
    with work.plant.engine.begin() as connection:
        for name, tenant in (("theirs@x", "ten_b"), ("empty@x", TENANT)):
            model = "m" if tenant == "ten_b" else None
            alias_verbs.create_alias(connection, tenant_id=tenant, name=name, model=model)
    create(work, "pictures@x", "i")
    job_id = work.batch(
        *(named(chat(name), model=name) for name in ("theirs@x", "empty@x", "pictures@x", "no@x")),
        named(chat("good"), model=NAME),
    )
    work.upkeep()
    job = work.plant.job(job_id)
    assert job.state == "failed"
    assert [(line["line"], line["code"]) for line in job.errors] == [
        (number, "model_not_found") for number in (1, 2, 3, 4)
    ]
    assert "models" not in job.detail
