"""Artifacts, previews and progress on a real database: fenced, once, and cleaned up after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Row

from shared.db.inputs import find_inputs
from shared.errors import NotFound
from shared.ids import artifact_id
from shared.lifecycle import working
from shared.lifecycle.working import Claim, Held, NewArtifact, ReleaseReason, RowStep, SliceEnd
from shared.states import ShardState
from shared.storage.base import StoredObject
from shared.storage.local import LocalStore
from tests.integration.protocol import OTHER, TENANT, Plant, generation_end
from worker.outputs import files_prefix
from worker.upkeep.cleaner import Cleaner

IMAGES = "/v1/images/generations"


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    plant.session("w1", pools=["text", "upkeep"])
    plant.session("w2", pools=["text", "upkeep"])
    yield plant
    plant.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, "a signing key of some length")


def new(claim: Claim, name: str = "0.png", role: str = "image", line: int = 0) -> NewArtifact:
    made = artifact_id(f"{claim.job_id}-{line}", name)
    prefix = files_prefix(claim.tenant_id, claim.job_id, str(claim.ordinal), claim.epoch)
    stored = StoredObject(f"{prefix}{made}.png", f"{claim.epoch}" * 64, 7)
    return NewArtifact(
        made, name, role, "image/png", stored, line=line, width=8, provenance={"prompt": "a\x00b"}
    )


def artifacts(plant: Plant, job_id: str) -> Sequence[Row[tuple[object, ...]]]:
    return plant.sql("SELECT * FROM artifacts WHERE job_id = :id ORDER BY id", id=job_id)


def picture(plant: Plant) -> tuple[str, Claim]:
    """A single generation of a picture, claimed."""
    job_id = plant.generation()
    plant.sql("UPDATE jobs SET endpoint = :endpoint WHERE id = :id", endpoint=IMAGES, id=job_id)
    return job_id, plant.claim_one()


def slice_end(claim: Claim, files: list[NewArtifact]) -> SliceEnd:
    return SliceEnd(
        claim.held, ShardState.SUCCEEDED, StoredObject("k", "b" * 64, 1), None, 2, 0, [], files
    )


# --- commits ------------------------------------------------------------------------------------


def test_a_generations_files_are_visible_with_its_result(plant: Plant) -> None:
    job_id, claim = picture(plant)
    other = plant.generation()
    text_claim = plant.claim_one()
    ends = [
        generation_end(claim.held, artifacts=[new(claim), new(claim, "1.png")]),
        generation_end(text_claim.held),
    ]
    for _ in range(2):  # the answer to the first was lost
        with plant.connection() as connection:
            committed = working.finish_generations(connection, "w1", ends)
        assert committed == {claim.held, text_claim.held}
    found = artifacts(plant, job_id)
    assert {row.name for row in found} == {"0.png", "1.png"}
    assert {(row.tenant_id, row.shard_id, row.line, row.width) for row in found} == {
        (TENANT, claim.shard_id, 0, 8)
    }
    assert found[0].provenance == {"prompt": "a\x00b"}
    assert artifacts(plant, other) == []


def test_a_zombies_files_stay_unseen(plant: Plant) -> None:
    job_id, lost = picture(plant)
    plant.lose("w1")
    claim = plant.claim_one("w2")
    assert not plant.finish("w1", lost.held, artifacts=[new(lost)])
    assert artifacts(plant, job_id) == []
    assert plant.finish("w2", claim.held, "c" * 64, artifacts=[new(claim)])
    assert not plant.finish("w1", lost.held, artifacts=[new(lost)])
    (found,) = artifacts(plant, job_id)
    assert "/e2/" in found.storage_key


def test_a_slices_files_are_visible_once_with_its_lines(plant: Plant) -> None:
    job_id = plant.generating(1)
    claim = plant.claim_one(pools=["text"])
    end = slice_end(claim, [new(claim, line=1), new(claim, line=2)])
    for _ in range(2):
        with plant.engine.begin() as connection:
            assert working.finish_slice(connection, "w1", end)
    assert {row.line for row in artifacts(plant, job_id)} == {1, 2}


def test_a_zombies_slice_shows_no_files(plant: Plant) -> None:
    job_id = plant.generating(1)
    claim = plant.claim_one(pools=["text"])
    plant.lose("w1")
    with plant.engine.begin() as connection:
        assert not working.finish_slice(connection, "w1", slice_end(claim, [new(claim)]))
    assert artifacts(plant, job_id) == []


def test_an_id_of_another_job_is_left_as_it_is(plant: Plant) -> None:
    job_id, claim = picture(plant)
    file = new(claim)
    assert plant.finish("w1", claim.held, artifacts=[file])
    other, other_claim = picture(plant)
    assert plant.finish("w1", other_claim.held, artifacts=[file])
    (found,) = artifacts(plant, job_id)
    assert found.shard_id == claim.shard_id
    assert artifacts(plant, other) == []


# --- previews and progress ----------------------------------------------------------------------


def preview(plant: Plant, claim: Claim, session: str = "w1", step: int = 2) -> bool:
    shown = new(claim, "0.preview.0.webp", "preview")
    with plant.engine.begin() as connection:
        return working.add_preview(connection, session, claim.held, shown, step=step)


def test_a_preview_is_shown_and_announced_while_the_shard_is_held(plant: Plant) -> None:
    job_id, claim = picture(plant)
    assert preview(plant, claim)
    (shown,) = artifacts(plant, job_id)
    assert shown.role == "preview"
    (event,) = plant.sql("SELECT data FROM events WHERE type = 'job.preview'")
    assert event.data == {"artifact_id": shown.id, "step": 2}
    plant.lose("w1")
    again = plant.claim_one("w2")
    assert not preview(plant, claim, step=3)  # a zombie
    assert preview(plant, again, "w2")
    (shown,) = artifacts(plant, job_id)  # the second attempt's took its place
    assert "/e2/" in shown.storage_key
    assert len(plant.sql("SELECT 1 FROM events WHERE type = 'job.preview'")) == 2


def report(plant: Plant, held: Held, fraction: float, *, announce: bool = True) -> None:
    step = RowStep(held, fraction, 1, 4, "denoising", announce)
    with plant.connection() as connection:
        working.report_steps(connection, "w1", [step])


def test_progress_of_a_job_is_written_told_and_seen_by_watchers(plant: Plant) -> None:
    job_id, claim = picture(plant)
    before = plant.job(job_id).version
    report(plant, claim.held, 0.25)
    report(plant, claim.held, 0.5, announce=False)
    job = plant.job(job_id)
    assert (job.progress, job.version) == (0.5, before + 2)
    (event,) = plant.sql("SELECT data FROM events WHERE type = 'job.progress'")
    assert event.data == {"step": 1, "steps": 4, "stage": "denoising"}


def test_progress_of_a_zombie_counts_for_nothing(plant: Plant) -> None:
    job_id, claim = picture(plant)
    plant.lose("w1")
    report(plant, claim.held, 0.5)
    plant.claim_one("w2")
    report(plant, claim.held, 0.75)
    assert plant.job(job_id).progress is None
    assert plant.sql("SELECT 1 FROM events WHERE type = 'job.progress'") == []


def test_a_steps_progress_stays_on_its_shard(plant: Plant) -> None:
    job_id, claim = picture(plant)
    plant.sql("UPDATE shards SET stage = 'step' WHERE id = :id", id=claim.shard_id)
    before = plant.job(job_id)
    report(plant, claim.held, 0.5)
    after = plant.job(job_id)
    assert (after.progress, after.version) == (None, before.version)
    assert plant.shard(claim.shard_id).progress == 0.5


# --- inputs -------------------------------------------------------------------------------------


def test_a_tenant_finds_its_own_files_and_artifacts_alone(plant: Plant) -> None:
    _, claim = picture(plant)
    file = new(claim)
    assert plant.finish("w1", claim.held, artifacts=[file])
    plant.sql(
        "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key,"
        " expires_at) VALUES ('file-1', :t, 'f', 'vision', 3, 's', 'k1', NULL),"
        " ('file-2', :t, 'f', 'vision', 3, 's', 'k2', clock_timestamp())",
        t=TENANT,
    )
    ids = [file.id, "file-1", "file-2", "file-3"]
    with plant.connection() as connection:
        own = find_inputs(connection, TENANT, ids)
        foreign = find_inputs(connection, OTHER, ids)
    assert {source.id: source.storage_key for source in own.values()} == {
        file.id: file.stored.key, "file-1": "k1",
    }  # fmt: skip
    assert foreign == {}


# --- cleaning -----------------------------------------------------------------------------------


def put(store: LocalStore, *files: NewArtifact) -> None:
    for file in files:
        store.put_bytes(file.stored.key, b"picture", media_type="image/png")


def there(store: LocalStore, file: NewArtifact) -> bool:
    try:
        return store.size(file.stored.key) > 0
    except NotFound:
        return False


def clean(plant: Plant, store: LocalStore) -> None:
    plant.sql("UPDATE jobs SET ended_at = ended_at - interval '2 hours'")
    Cleaner(plant.engine, store).run()


def test_files_of_vain_attempts_and_previews_go_and_the_results_stay(
    plant: Plant, store: LocalStore
) -> None:
    job_id, first = picture(plant)
    put(store, vain := new(first))
    plant.release("w1", first.held, ReleaseReason.PREEMPTED)
    second = plant.claim_one()
    put(store, look := new(second, "0.preview.0.webp", "preview"), kept := new(second))
    assert preview(plant, second)
    assert plant.finish("w1", second.held, artifacts=[kept])
    clean(plant, store)
    assert [there(store, file) for file in (vain, look, kept)] == [False, False, True]
    assert [row.id for row in artifacts(plant, job_id)] == [kept.id]
    assert plant.job(job_id).cleaned_at is not None


def test_a_job_that_failed_keeps_nothing(plant: Plant, store: LocalStore) -> None:
    job_id, claim = picture(plant)
    put(store, vain := new(claim))
    assert plant.finish("w1", claim.held, state=ShardState.FAILED, error_code="engine_error")
    clean(plant, store)
    assert not there(store, vain)
    assert plant.job(job_id).cleaned_at is not None


def test_a_job_that_its_tenant_deleted_keeps_nothing(plant: Plant, store: LocalStore) -> None:
    job_id, claim = picture(plant)
    made = new(claim)
    put(store, made)
    with plant.connection() as connection:
        working.finish_generations(connection, "w1", [generation_end(claim.held, artifacts=[made])])
    plant.sql("UPDATE jobs SET deleted_at = clock_timestamp() WHERE id = :id", id=job_id)
    clean(plant, store)
    assert not there(store, made)


def test_a_batch_keeps_what_its_slices_committed(plant: Plant, store: LocalStore) -> None:
    job_id = plant.generating(2)
    plant.sql("UPDATE jobs SET endpoint = :endpoint WHERE id = :id", endpoint=IMAGES, id=job_id)
    lost, other = plant.claim(pools=["text"])
    put(store, vain := new(lost, line=1), kept := new(other, line=3))
    plant.release("w1", lost.held, ReleaseReason.PREEMPTED)
    again = plant.claim_one(pools=["text"])
    put(store, second := new(again, line=1))
    for claim, file in ((again, second), (other, kept)):
        with plant.engine.begin() as connection:
            assert working.finish_slice(connection, "w1", slice_end(claim, [file]))
    assert plant.finish_assembly("w1", plant.claim_one(pools=["upkeep"]).held)
    clean(plant, store)
    assert [there(store, file) for file in (vain, kept, second)] == [False, True, True]


def test_a_slice_that_was_cut_short_keeps_its_files(plant: Plant, store: LocalStore) -> None:
    job_id = plant.generating(1)
    plant.sql("UPDATE jobs SET endpoint = :endpoint WHERE id = :id", endpoint=IMAGES, id=job_id)
    claim = plant.claim_one(pools=["text"])
    put(store, kept := new(claim, line=1))
    plant.stop(job_id)
    end = SliceEnd(
        claim.held, ShardState.CANCELLED, StoredObject("k", "b" * 64, 1), None, 1, 1, [], [kept]
    )
    with plant.engine.begin() as connection:
        assert working.finish_slice(connection, "w1", end)
    assert plant.finish_assembly("w1", plant.claim_one(pools=["upkeep"]).held)
    clean(plant, store)
    assert there(store, kept)


def test_jobs_that_left_nothing_behind_are_marked_by_the_thousand(
    plant: Plant, store: LocalStore
) -> None:
    for _ in range(3):
        _, claim = picture(plant)
        assert plant.finish("w1", claim.held, artifacts=[new(claim)])
    text_job = plant.generation()
    assert plant.finish("w1", plant.claim_one().held)
    refusing = Cleaner(plant.engine, store)
    plant.sql("UPDATE jobs SET ended_at = ended_at - interval '2 hours'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "delete_prefix", lambda _: pytest.fail("looked at one by one"))
        refusing.run()
    left = "SELECT count(*) FROM jobs WHERE cleaned_at IS NULL"
    assert plant.scalar(left) == 1
    assert plant.job(text_job).cleaned_at is None  # nothing to clean, ever
