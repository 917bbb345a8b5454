"""Files that rows make: from an engine's spool to artifacts, whatever is killed on the way."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from shared import lifecycle
from shared.errors import NotFound
from shared.ids import artifact_id
from shared.states import StopReason
from shared.storage.base import Store
from shared.storage.s3 import S3Store
from tests.integration.media_plant import (
    EDITS,
    OTHER,
    PUBLIC_URL,
    TENANT,
    MediaPlant,
    media_plant,
)
from tests.plant import wait_until
from tests.services.swift import S3Bucket
from worker.upkeep.cleaner import Cleaner


@pytest.fixture
def media(tmp_path: Path, database_url: str) -> Iterator[MediaPlant]:
    with media_plant(tmp_path / "plant", database_url) as made:
        yield made


def holds(store: Store, key: str, sha256: str) -> bool:
    try:
        return hashlib.sha256(b"".join(store.read(key))).hexdigest() == sha256
    except NotFound:
        return False


def test_a_single_picture_becomes_artifacts(media: MediaPlant) -> None:
    media.start("image")
    job_id = media.single({"prompt": "a fox", "n": 2, "seed": 7, "size": "32x16"})
    job = media.wait(job_id)
    assert job.state == "succeeded"
    made = media.artifacts(job_id)
    assert [(row.name, row.role) for row in made] == [
        ("0.png", "image"),
        ("0.thumbnail.webp", "thumbnail"),
        ("1.png", "image"),
        ("1.thumbnail.webp", "thumbnail"),
    ]
    for row in made:
        assert row.id == artifact_id(f"{job_id}-0", row.name)
        assert row.storage_key.startswith(f"t/{TENANT}/j/{job_id}/a/0/e1/{row.id}.")
        assert holds(media.store, row.storage_key, row.sha256)
    first, thumbnail = made[:2]
    assert (first.width, first.height, first.media_type, first.line) == (32, 16, "image/png", 0)
    assert first.provenance["seed"] == 7
    assert thumbnail.parent_id == first.id
    assert job.result["data"][0] == {
        "artifact_id": first.id,
        "url": f"{PUBLIC_URL}/v1/artifacts/{first.id}/content",
        "seed": 7,
    }
    assert media.scratch() == []


def test_a_batch_of_pictures(media: MediaPlant) -> None:
    media.start("upkeep", "image")
    job_id = media.batch([{"model": "pictures", "prompt": f"fox {n}"} for n in range(40)])
    assert media.wait(job_id).rows_completed == 40
    made = media.artifacts(job_id)
    assert len(made) == 80
    assert {row.line for row in made} == set(range(1, 41))
    assert all(holds(media.store, row.storage_key, row.sha256) for row in made)
    lines = media.lines(job_id)
    ids = {line["response"]["body"]["data"][0]["artifact_id"] for line in lines.values()}
    assert ids == {row.id for row in made if row.role == "image"}
    assert media.scratch() == []


def test_a_file_that_is_not_what_the_engine_says_fails_its_row_alone(media: MediaPlant) -> None:
    media.start("upkeep", "image")
    ways = ["hash", "size", "outside", "link", "missing", "id", "role"]
    prompts = ["a fox", *(f"a fox [[bad-file {how}]]" for how in ways)]
    job_id = media.batch([{"model": "pictures", "prompt": prompt} for prompt in prompts])
    job = media.wait(job_id)
    assert (job.state, job.rows_completed, job.rows_failed) == ("succeeded", 1, len(ways))
    lines = media.lines(job_id)
    codes = {lines[f"row-{n + 1}"]["error"]["code"] for n in range(len(ways))}
    assert codes == {"engine_error"}
    assert {row.line for row in media.artifacts(job_id)} == {1}
    assert len(media.artifacts(job_id)) == 2
    assert media.sql("SELECT sum(rows) AS n FROM usage")[0].n == 1
    # What an engine has not described is its own until it ends.
    assert {path.parent.parent.name for path in media.scratch()} == {"made"}
    for process in media.plant.processes.values():
        process.terminate()
    wait_until(lambda: not media.spools(), 30, media.logs)


def test_a_single_picture_with_a_bad_file_fails(media: MediaPlant) -> None:
    media.start("image")
    job = media.wait(media.single({"prompt": "a fox [[bad-file hash]]"}))
    assert (job.state, job.error_code) == ("failed", "engine_error")
    assert media.artifacts(job.id) == []


# --- inputs -------------------------------------------------------------------------------------


def test_rows_see_the_files_and_artifacts_that_they_name(media: MediaPlant) -> None:
    media.start("upkeep", "image")
    first = media.single({"prompt": "a fox"})
    media.wait(first)
    picture = media.artifacts(first)[0]
    file_id = media.file(b"a picture")
    rows = [
        {"model": "pictures", "prompt": "x", "image": file_id, "mask": picture.id},
        {"model": "pictures", "prompt": "y", "image": {"file_id": file_id}},
    ]
    job_id = media.batch(rows, EDITS)
    assert media.wait(job_id).rows_completed == 2
    seen = {
        row.line: row.provenance["inputs"] for row in media.artifacts(job_id) if row.role == "image"
    }
    sha256 = hashlib.sha256(b"a picture").hexdigest()
    assert seen == {1: {file_id: sha256, picture.id: picture.sha256}, 2: {file_id: sha256}}
    assert media.scratch() == []


def test_inputs_that_cannot_be_had_are_their_rows_errors(media: MediaPlant) -> None:
    media.start("upkeep", "image")
    good = media.file(b"a picture")
    foreign = media.file(b"a secret", OTHER)
    lost = media.file(b"gone", stored=False)
    large = media.file(b"x")
    media.sql("UPDATE files SET bytes = 33 * 1024 * 1024 WHERE id = :id", id=large)
    deleted = media.file(b"x")
    media.sql("UPDATE files SET deleted_at = clock_timestamp() WHERE id = :id", id=deleted)
    names = [good, foreign, lost, large, deleted, "file-0000"]
    rows = [{"model": "pictures", "prompt": "x", "image": name} for name in names]
    job_id = media.batch(rows, EDITS)
    job = media.wait(job_id)
    assert (job.rows_completed, job.rows_failed) == (1, 5)
    lines = media.lines(job_id)
    answers = [lines[f"row-{n}"]["response"] for n in range(len(names))]
    assert [answer["status_code"] for answer in answers] == [200, 400, 400, 400, 400, 400]
    errors = [answer["body"]["error"] for answer in answers[1:]]
    assert [error["code"] for error in errors] == [
        "not_found", "not_found", "invalid_request", "not_found", "not_found",
    ]  # fmt: skip
    assert {error["param"] for error in errors} == {"image"}
    unknown = errors[4]["message"].replace("file-0000", foreign)
    assert errors[0]["message"] == unknown  # another tenant's file is as unknown as none


def test_a_single_edit_of_a_missing_file_fails_with_the_field(media: MediaPlant) -> None:
    media.start("image")
    job = media.wait(media.single({"prompt": "x", "image": "art_0000"}, EDITS))
    assert (job.state, job.error_code, job.error_param) == ("failed", "not_found", "image")


# --- progress -----------------------------------------------------------------------------------


def test_a_slow_picture_tells_how_far_it_is_and_shows_previews(media: MediaPlant) -> None:
    media.start("image")
    body = {"prompt": "a fox [[delay 3]]", "steps": 8, "partial_images": 1}
    job_id = media.single(body, model="slow-pictures")
    seen: list[float] = []

    def ended() -> bool:
        job = media.job(job_id)
        seen.append(job.progress or 0.0)
        return job.ended_at is not None

    wait_until(ended, 60, media.logs, pause_seconds=0.05)
    assert seen == sorted(seen)
    assert seen[-1] > 0
    told = media.events(job_id, "job.progress")
    assert told[0] == {"step": 1, "steps": 8, "stage": "denoising"}
    assert [event["step"] for event in told] == sorted({event["step"] for event in told})
    (preview,) = media.events(job_id, "job.preview")
    (shown,) = [row for row in media.artifacts(job_id) if row.role == "preview"]
    assert preview == {"artifact_id": shown.id, "step": 4}
    assert holds(media.store, shown.storage_key, shown.sha256)


# --- faults -------------------------------------------------------------------------------------


def test_a_killed_worker_leaves_one_set_of_files(media: MediaPlant) -> None:
    media.start("upkeep", "image")
    rows = [{"model": "slow-pictures", "prompt": f"fox {n} [[delay {n / 5}]]"} for n in range(12)]
    job_id = media.batch(rows)
    wait_until(lambda: any(stored(media, job_id)), 60, media.logs)
    media.plant.processes["image"].kill()
    early = set(stored(media, job_id))
    assert len(early) < 24
    media.plant.restart("image")
    job = media.wait(job_id)
    assert (job.state, job.rows_completed) == ("succeeded", 12)
    made = media.artifacts(job_id)
    assert len(made) == 24
    assert {row.storage_key.split("/")[6] for row in made} == {"e2"}
    assert all(holds(media.store, row.storage_key, row.sha256) for row in made)
    assert media.scratch() == []

    media.sql("UPDATE jobs SET ended_at = ended_at - interval '2 hours' WHERE id = :id", id=job_id)
    Cleaner(media.plant.engine, media.store).run()
    assert set(stored(media, job_id)) == {row.storage_key for row in made}


def test_a_zombies_files_never_show(media: MediaPlant) -> None:
    media.start("upkeep", "image")
    job_id = media.single({"prompt": "a fox"}, model="slow-pictures")
    wait_until(lambda: bool(media.events(job_id, "job.progress")), 60, media.logs)
    zombie = media.plant.processes["image"].pid
    os.kill(zombie, signal.SIGSTOP)
    try:
        media.start("second")
        job = media.wait(job_id)
    finally:
        os.kill(zombie, signal.SIGCONT)
    log = media.plant.processes["image"].log
    wait_until(lambda: "session_lost" in log(), 30, log)
    wait_until(lambda: media.scratch() == [], 30, log)
    assert job.state == "succeeded"
    made = media.artifacts(job_id)
    assert len(made) == 2
    assert all("/e2/" in row.storage_key for row in made)


def test_a_cancelled_batch_keeps_finished_pictures_and_no_scratch(media: MediaPlant) -> None:
    media.start("upkeep", "image")
    quick = {"model": "pictures", "prompt": "a fox"}
    endless = {"model": "pictures", "prompt": "a fox [[sleep-forever]]"}
    job_id = media.batch([quick, endless, quick])
    wait_until(lambda: len(stored(media, job_id)) == 4, 60, media.logs)
    with media.plant.engine.begin() as connection:
        lifecycle.request_stop(
            connection, tenant_id=TENANT, job_id=job_id, reason=StopReason.CANCELLED
        )
    assert media.wait(job_id).state == "cancelled"
    assert {row.line for row in media.artifacts(job_id)} == {1, 3}
    assert media.scratch() == []


def stored(media: MediaPlant, job_id: str) -> list[str]:
    """The keys of the job's files, visible or not."""
    root = media.plant.folder / "artifacts"
    return [
        str(path.relative_to(root)) for path in (root / f"t/{TENANT}/j/{job_id}/a").glob("*/*/*")
    ]


def test_files_and_inputs_through_a_bucket(
    tmp_path: Path, database_url: str, s3_bucket: S3Bucket
) -> None:
    settings = {
        "STORAGE_DIR": "",
        "S3_BUCKET": s3_bucket.name,
        "S3_ENDPOINT": s3_bucket.endpoint_url,
        "S3_ACCESS_KEY": s3_bucket.access_key,
        "S3_SECRET_KEY": s3_bucket.secret_key,
        "S3_REGION": s3_bucket.region,
    }
    bucket = S3Store(
        s3_bucket.name,
        endpoint=s3_bucket.endpoint_url,
        region=s3_bucket.region,
        access_key=s3_bucket.access_key,
        secret_key=s3_bucket.secret_key,
    )
    with media_plant(tmp_path / "plant", database_url, store=bucket, **settings) as media:
        media.start("upkeep", "image")
        picture = media.file(b"a picture")
        rows = [{"model": "pictures", "prompt": f"fox {n}", "image": picture} for n in range(3)]
        job_id = media.batch(rows, EDITS)
        assert media.wait(job_id).rows_completed == 3
        made = media.artifacts(job_id)
        assert len(made) == 6
        assert all(holds(media.store, row.storage_key, row.sha256) for row in made)
        shown = bucket.download_url(
            made[0].storage_key, filename="a.png", media_type="image/png", seconds=60, inline=True
        )
        assert httpx2.get(shown).headers["Content-Type"] == "image/png"
