"""Deletions: what goes, what is refused, and what the record says of it."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api import retention_objects
from tests.integration.api_case import ADMIN
from tests.integration.everything import for_two_tenants
from tests.integration.media_case import PAINTER, MediaCase, picture_answer
from tests.integration.retention_case import (
    objects_below,
    rows_that_mention,
)
from worker.upkeep.retention_deletions import Deletions

PICTURE = {"endpoint": "/v1/images/generations", "body": {"model": PAINTER, "prompt": "x"}}


class Killed(BaseException):
    """The process is gone, at this very place."""


class DyingDeletions(Deletions):
    """Is killed before a step, when it has done so many."""

    def __init__(self, *args: Any, steps: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._steps = steps

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise Killed

    def _purge(self, *args: Any) -> None:
        self._step()
        super()._purge(*args)
        self._step()

    def _remove(self, *args: Any) -> None:
        self._step()
        super()._remove(*args)
        self._step()


@pytest.fixture(name="media")
def media_fixture(database_url: str, tmp_path: Path) -> Iterator[MediaCase]:
    case = MediaCase(database_url, tmp_path, deletion_grace_seconds=0)
    yield case
    case.close()


def deletions(media: MediaCase, grace_seconds: float = 0) -> Deletions:
    return Deletions(media.engine, media.services.store, grace_seconds=grace_seconds)


def carry_out(media: MediaCase, grace_seconds: float = 0) -> None:
    """As many rounds of upkeep as any deletion takes that nobody keeps waiting."""
    for _ in range(3):
        with media.begin() as connection:
            due = "UPDATE deletions SET due_at = clock_timestamp() WHERE completed_at IS NULL"
            connection.execute(text(due))
        deletions(media, grace_seconds).run()


def record(media: MediaCase, deletion_id: str) -> dict[str, Any]:
    found = media.get(f"/v1/deletions/{deletion_id}").json
    retention_objects.Deletion.model_validate(found)
    return dict(found)


def keys_below(media: MediaCase) -> list[str]:
    return sorted(
        path.relative_to(media.settings.storage_dir).as_posix()
        for path in (media.settings.storage_dir / "t").rglob("*")
        if path.is_file()
    )


def hash_of(keys: list[str]) -> str:
    return sha256(b"".join(sorted(sha256(key.encode()).digest() for key in keys))).hexdigest()


def picture_job(media: MediaCase, **changed: Any) -> str:
    assert media.post("/v1/jobs", PICTURE | changed).status_code == 202
    return media.finish_next(picture_answer())


def test_a_job_goes_with_all_it_made_and_the_record_proves_it(media: MediaCase) -> None:
    job_id = picture_job(media)
    keys = keys_below(media)
    with media.begin() as connection:
        rows = rows_that_mention(connection, job_id)
    reply = media.delete(f"/v1/jobs/{job_id}")
    assert reply.status_code == 202
    assert reply.json["status"] == "pending"
    assert reply.headers["Location"] == f"/v1/deletions/{reply.json['id']}"
    assert media.get(f"/v1/jobs/{job_id}").status_code == 404
    assert media.get(f"/v1/jobs/{job_id}/artifacts").status_code == 404
    carry_out(media)
    found = record(media, reply.json["id"])
    assert (found["status"], found["objects"]) == ("complete", 2)
    assert found["keys_sha256"] == hash_of(keys)
    assert found["rows"] == {table: n for table, n in rows.items() if table != "usage"}
    listed = media.get(f"/v1/deletions/{found['id']}/objects").json
    retention_objects.DeletedObjectList.model_validate(listed)
    assert {item["id"] for item in listed["data"]} == {
        sha256(key.encode()).hexdigest() for key in keys
    }
    assert keys_below(media) == []
    with media.begin() as connection:
        assert rows_that_mention(connection, job_id) == {"usage": 1}  # what bills are made of


def test_a_deletion_is_not_complete_before_late_writers_have_stopped(media: MediaCase) -> None:
    job_id = picture_job(media)
    deletion_id = media.delete(f"/v1/jobs/{job_id}").json["id"]
    with media.begin() as connection:
        connection.execute(text("UPDATE deletions SET settles_at = settles_at + interval '1 hour'"))
    carry_out(media)
    assert record(media, deletion_id)["status"] == "pending"
    assert keys_below(media) == []
    late = f"t/{tenant_of(media)}/j/{job_id}/a/0/e9/late.png"
    media.services.store.put_bytes(late, b"x", media_type="image/png")
    with media.begin() as connection:
        connection.execute(text("UPDATE deletions SET settles_at = clock_timestamp()"))
    carry_out(media)
    found = record(media, deletion_id)
    assert (found["status"], found["objects"]) == ("complete", 3)
    assert keys_below(media) == []


def tenant_of(media: MediaCase) -> str:
    return str(media.get("/v1/retention").json["tenant_id"])


def test_an_open_job_is_refused_until_it_was_cancelled(media: MediaCase) -> None:
    job_id = media.post("/v1/jobs", PICTURE).json["id"]
    reply = media.delete(f"/v1/jobs/{job_id}")
    assert (reply.status_code, reply.json["error"]["code"]) == (409, "conflict")
    assert media.post(f"/v1/jobs/{job_id}/cancel").status_code in {200, 202}
    first = media.delete(f"/v1/jobs/{job_id}").json["id"]
    assert media.delete(f"/v1/jobs/{job_id}").json["id"] == first  # again: the same record
    carry_out(media)
    assert media.delete(f"/v1/jobs/{job_id}").status_code == 404


def test_an_artifact_goes_with_its_thumbnail_and_its_job_stays(media: MediaCase) -> None:
    job_id = picture_job(media)
    artifacts = media.get(f"/v1/jobs/{job_id}/artifacts").json["data"]
    (picture,) = [item["id"] for item in artifacts if item["role"] == "image"]
    editing = {"model": PAINTER, "prompt": "x", "image": {"artifact_id": picture}}
    body = {"endpoint": "/v1/images/edits", "body": editing}
    editor = media.post("/v1/jobs", body)
    assert editor.status_code == 202, editor.json
    assert media.delete(f"/v1/artifacts/{picture}").status_code == 409  # a job that waits names it
    assert media.delete(f"/v1/jobs/{job_id}").status_code == 409
    media.post(f"/v1/jobs/{editor.json['id']}/cancel")
    reply = media.delete(f"/v1/artifacts/{picture}")
    assert reply.status_code == 202
    carry_out(media)
    found = record(media, reply.json["id"])
    assert (found["status"], found["objects"], found["rows"]) == ("complete", 2, {"artifacts": 2})
    assert media.get(f"/v1/artifacts/{picture}").status_code == 404
    assert media.get(f"/v1/jobs/{job_id}").status_code == 200
    assert keys_below(media) == []


def test_a_file_goes_unless_a_job_that_waits_names_it(media: MediaCase) -> None:
    file_id = media.upload(b"\x89PNG", purpose="vision", filename="secret-name.png").json["id"]
    editing = {"model": PAINTER, "prompt": "x", "image": {"file_id": file_id}}
    editor = media.post("/v1/jobs", {"endpoint": "/v1/images/edits", "body": editing})
    assert editor.status_code == 202, editor.json
    assert media.delete(f"/v1/files/{file_id}").status_code == 409
    media.post(f"/v1/jobs/{editor.json['id']}/cancel")
    reply = media.delete(f"/v1/files/{file_id}")
    assert reply.json == {"id": file_id, "object": "file", "deleted": True}
    carry_out(media)
    found = record(media, reply.headers["Pressrun-Deletion"])
    assert (found["status"], found["objects"], found["rows"]) == ("complete", 1, {"files": 1})
    with media.begin() as connection:
        assert rows_that_mention(connection, "secret-name") == {}


def test_of_a_file_that_an_ended_batch_read_a_row_without_a_name_stays(media: MediaCase) -> None:
    batch_id = media.submit_batch()
    assert media.post(f"/v1/batches/{batch_id}/cancel").status_code == 200
    file_id = media.get(f"/v1/batches/{batch_id}").json["input_file_id"]
    first = media.delete(f"/v1/files/{file_id}").headers["Pressrun-Deletion"]
    carry_out(media)
    assert record(media, first)["rows"] == {"files_emptied": 1}
    with media.begin() as connection:
        assert rows_that_mention(connection, "rows.jsonl") == {}
    assert media.delete(f"/v1/jobs/{batch_id}").status_code == 202
    carry_out(media)
    with media.begin() as connection:
        assert rows_that_mention(connection, batch_id) == {}


def test_an_erased_tenant_leaves_nothing_however_often_upkeep_is_killed(media: MediaCase) -> None:
    theirs, stranger, mine = for_two_tenants(media)
    carry_out(media)  # what either has deleted itself
    first = tenant_of(media)
    with media.begin() as connection:
        before = rows_that_mention(connection, first)
    assert {"jobs", "files", "models", "api_keys", "usage", "uploads"} <= set(before)
    other, media.key = media.key, stranger
    second = tenant_of(media)
    with media.begin() as connection:
        untouched = rows_that_mention(connection, second)
    keys = objects_below(media.settings.storage_dir, first)
    reply = media.client.delete(f"/v1/admin/tenants/{first}", headers=ADMIN)
    assert reply.status_code == 202, reply.json
    path = reply.headers["Location"]
    assert media.get("/v1/jobs", headers=other).status_code == 401
    kept = erase(media, path, steps=3)
    assert kept["status"] == "complete"
    assert (kept["objects"], kept["keys_sha256"]) == (len(keys), hash_of(keys))
    assert (kept["rows"]["tenants"], kept["rows"]["jobs"]) == (1, before["jobs"])
    assert kept["usage"]["rows"] >= 1
    assert objects_below(media.settings.storage_dir, first) == []
    words = [first, *(value for values in theirs.values() for value in values)]
    words = [word for word in words if word not in {v for values in mine.values() for v in values}]
    with media.begin() as connection:
        assert rows_that_mention(connection, *words) == {}
        assert rows_that_mention(connection, second) == untouched
    assert media.get("/v1/jobs").status_code == 200
    assert media.client.delete(f"/v1/admin/tenants/{first}", headers=ADMIN).status_code == 404
    assert media.get(path).status_code == 403  # it is nobody's but the administrator's


def erase(media: MediaCase, path: str, *, steps: int) -> dict[str, Any]:
    """The record, after upkeep was killed every few steps, and always later."""
    store, engine = media.services.store, media.engine
    for life in range(steps, 400, steps):
        with media.begin() as connection:
            connection.execute(text("UPDATE deletions SET due_at = clock_timestamp()"))
            # Whoever works on something of it hears of the cancel, and is done.
            connection.execute(
                text("UPDATE shards SET state = 'cancelled', ended_at = clock_timestamp()"
                     " WHERE state = 'running'")
            )  # fmt: skip
        try:
            DyingDeletions(engine, store, grace_seconds=0, steps=life).run()
        except Killed:
            continue
        found = media.client.get(path, headers=ADMIN).json
        if found["status"] == "complete":
            break
    retention_objects.Deletion.model_validate(found)
    return dict(found)
