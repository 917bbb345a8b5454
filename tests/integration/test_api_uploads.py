"""Files in parts over HTTP, joined by upkeep."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api import upload_objects
from shared.db.uploads import spent_uploads
from shared.errors import StorageUnavailable
from tests.integration.upkeep_case import Hall, hall_fixture, until
from worker.upkeep.cleaner import Cleaner

__all__ = ["hall_fixture"]

BODY = {"filename": "in/rows.jsonl", "purpose": "batch", "mime_type": "application/jsonl"}


def begin(hall: Hall, size: int, **changed: Any) -> str:
    reply = hall.post("/v1/uploads", BODY | {"bytes": size} | changed)
    assert reply.status_code == 200, reply.json
    upload_objects.Upload.model_validate(reply.json)
    assert (reply.json["status"], reply.json["file"]) == ("pending", None)
    assert reply.json["expires_at"] == reply.json["created_at"] + 3_600
    return str(reply.json["id"])


def send(hall: Hall, upload_id: str, data: bytes, **headers: str) -> TestResponse:
    return hall.app.test_client().post(
        f"/v1/uploads/{upload_id}/parts",
        data={"data": (io.BytesIO(data), "upload")},
        headers=hall.key | headers,
    )


def part(hall: Hall, upload_id: str, data: bytes) -> str:
    reply = send(hall, upload_id, data)
    assert reply.status_code == 200, reply.json
    upload_objects.UploadPart.model_validate(reply.json)
    assert reply.json["upload_id"] == upload_id
    return str(reply.json["id"])


def complete(hall: Hall, upload_id: str, parts: list[str], **said: str) -> TestResponse:
    return hall.app.test_client().post(
        f"/v1/uploads/{upload_id}/complete", json={"part_ids": parts} | said, headers=hall.key
    )


def stored(hall: Hall) -> list[str]:
    """Keys in the store, below uploads."""
    root = hall.settings.storage_dir
    assert root is not None
    return sorted(str(p.relative_to(root)) for p in root.rglob("u/**/*") if p.is_file())


def test_three_parts_out_of_order_become_one_file(hall: Hall) -> None:
    data = os.urandom(3_000_001)
    upload_id = begin(hall, len(data))
    cuts = {2: data[2_000_000:], 0: data[:1_000_000], 1: data[1_000_000:2_000_000]}
    ids = {place: part(hall, upload_id, piece) for place, piece in cuts.items()}
    parts = [ids[0], ids[1], ids[2]]
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest().upper()
    with hall.upkeep_running():
        reply = complete(hall, upload_id, parts, md5=md5)
        assert reply.status_code == 200, reply.json
        upload_objects.Upload.model_validate(reply.json)
        file = reply.json["file"]
        assert (reply.json["status"], file["bytes"]) == ("completed", len(data))
        assert (file["filename"], file["purpose"]) == ("rows.jsonl", "batch")
        assert file["expires_at"] == file["created_at"] + 30 * 86_400
        assert hall.content(file["id"]) == data
        # The answer was lost: what was made is told again.
        assert complete(hall, upload_id, parts, md5=md5).json == reply.json
    assert hall.get(f"/v1/uploads/{upload_id}").json == reply.json
    other = complete(hall, upload_id, parts)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")
    assert send(hall, upload_id, b"more").status_code == 409
    assert hall.post(f"/v1/uploads/{upload_id}/cancel").status_code == 409
    assert len(stored(hall)) == 1, "the parts are gone, the file is there"
    assert list(hall.settings.scratch_dir.iterdir()) == []


def test_a_wrong_md5_leaves_the_upload_open(hall: Hall) -> None:
    upload_id = begin(hall, 8)
    parts = [part(hall, upload_id, b"abcd"), part(hall, upload_id, b"efgh")]
    with hall.upkeep_running():
        wrong = complete(hall, upload_id, parts, md5="0" * 32)
        assert wrong.status_code == 400
        error = wrong.json["error"]
        assert (error["code"], error["param"]) == ("checksum_mismatch", "md5")
        assert len(stored(hall)) == 2, "nothing was made of the parts"
        md5 = hashlib.md5(b"efghabcd", usedforsecurity=False).hexdigest()
        right = complete(hall, upload_id, parts[::-1], md5=md5)
    assert right.status_code == 200
    assert hall.content(right.json["file"]["id"]) == b"efghabcd"


@pytest.mark.parametrize(
    ("said", "param"),
    [
        (lambda ids: {"part_ids": ids[:1]}, "part_ids"),
        (lambda ids: {"part_ids": [ids[0], ids[0]]}, "part_ids"),
        (lambda ids: {"part_ids": [*ids, "part_01"]}, "part_ids"),
        (lambda ids: {"part_ids": ["a\0b", ids[1]]}, "part_ids"),
        (lambda ids: {"part_ids": []}, "part_ids"),
        (lambda ids: {"part_ids": ids, "md5": "x" * 32}, "md5"),
        (lambda ids: {"part_ids": ids, "colour": 1}, "colour"),
    ],
)
def test_what_does_not_make_the_file_is_named(
    hall: Hall, said: Callable[[list[str]], dict[str, Any]], param: str
) -> None:
    upload_id = begin(hall, 8)
    ids = [part(hall, upload_id, b"abcd"), part(hall, upload_id, b"efgh")]
    reply = hall.post(f"/v1/uploads/{upload_id}/complete", said(ids))
    assert (reply.status_code, reply.json["error"]["param"]) == (400, param)
    assert not hall.upkeep(), "no job was made"
    assert send(hall, upload_id, b"more").status_code == 200, "it is still open"


@pytest.mark.parametrize(
    ("changed", "status", "param"),
    [
        ({"bytes": 0}, 400, "bytes"),
        ({"bytes": 8 * 2**30 + 1}, 413, "bytes"),
        ({"bytes": "8"}, 400, "bytes"),
        ({"purpose": "batch_output"}, 400, "purpose"),
        ({"filename": ""}, 400, "filename"),
        ({"mime_type": "a\nb"}, 400, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "expires_after.seconds"),
        ({"colour": 1}, 400, "colour"),
    ],
)
def test_a_bad_upload_names_the_field(
    hall: Hall, changed: dict[str, Any], status: int, param: str
) -> None:
    reply = hall.post("/v1/uploads", BODY | {"bytes": 8} | changed)
    assert (reply.status_code, reply.json["error"]["param"]) == (status, param)


def test_parts_are_bounded(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.upload_requests.PART_BYTES", 1_000)
    monkeypatch.setattr("api.routes.uploads.PART_BYTES", 1_000)
    upload_id = begin(hall, 600)
    assert send(hall, upload_id, b"x" * 1_001).status_code == 413
    assert send(hall, upload_id, b"").status_code == 400
    assert send(hall, upload_id, b"x" * 1_000).status_code == 200
    assert send(hall, upload_id, b"x" * 1_000).status_code == 200
    full = send(hall, upload_id, b"x" * 1_000)
    assert (full.status_code, full.json["error"]["param"]) == (400, "data")
    assert len(stored(hall)) == 2
    wrong = hall.client.post(
        f"/v1/uploads/{upload_id}/parts", data={"file": (io.BytesIO(b"x"), "f")}, headers=hall.key
    )
    assert (wrong.status_code, wrong.json["error"]["param"]) == (400, "data")


def test_a_cancelled_upload_takes_and_keeps_nothing(hall: Hall) -> None:
    upload_id = begin(hall, 4)
    ids = [part(hall, upload_id, b"abcd")]
    reply = hall.post(f"/v1/uploads/{upload_id}/cancel")
    assert (reply.status_code, reply.json["status"]) == (200, "cancelled")
    assert hall.post(f"/v1/uploads/{upload_id}/cancel").json == reply.json
    assert stored(hall) == []
    for refused in (send(hall, upload_id, b"x"), complete(hall, upload_id, ids)):
        assert refused.status_code == 409
    assert stored(hall) == []


def test_an_upload_expires_and_its_parts_go(hall: Hall) -> None:
    upload_id, young = begin(hall, 4), begin(hall, 4)
    ids = [part(hall, upload_id, b"abcd")]
    kept = part(hall, young, b"abcd")
    age(hall, upload_id, "1 second")
    for refused in (send(hall, upload_id, b"x"), complete(hall, upload_id, ids)):
        assert (refused.status_code, refused.json["error"]["code"]) == (409, "conflict")
    assert hall.post(f"/v1/uploads/{upload_id}/cancel").status_code == 409
    Cleaner(hall.engine, hall.services.store).run()
    assert len(stored(hall)) == 2, "a part may be on its way"
    age(hall, upload_id, "61 minutes")
    Cleaner(hall.engine, hall.services.store).run()
    assert [key.rpartition("/")[2] for key in stored(hall)] == [kept]


def age(hall: Hall, upload_id: str, over_for: str) -> None:
    with hall.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE uploads SET expires_at = clock_timestamp() - CAST(%s AS interval),"
            " ended_at = ended_at - CAST(%s AS interval) WHERE id = %s",
            (over_for, over_for, upload_id),
        )


def test_the_cleaner_keeps_the_file_and_removes_vain_joins(hall: Hall) -> None:
    upload_id = begin(hall, 4, purpose="user_data")
    ids = [part(hall, upload_id, b"abcd")]
    with hall.upkeep_running():
        file = complete(hall, upload_id, ids).json["file"]
    assert file["expires_at"] is None
    (key,) = stored(hall)
    vain = key.rpartition("/")[0] + "/join_zombie-e1"
    hall.services.store.put_bytes(vain, b"late", media_type="x")
    age(hall, upload_id, "61 minutes")
    Cleaner(hall.engine, hall.services.store).run()
    assert stored(hall) == [key]
    assert hall.content(file["id"]) == b"abcd"
    with hall.begin() as connection:
        assert spent_uploads(connection) == []


def test_another_tenant_finds_nothing(hall: Hall) -> None:
    upload_id, mine = begin(hall, 4), begin(hall, 4)
    ids = [part(hall, upload_id, b"abcd")]
    own = part(hall, mine, b"abcd")
    assert complete(hall, mine, ids).json["error"]["param"] == "part_ids"
    stranger = hall.new_tenant()
    for path in ("parts", "complete", "cancel"):
        json = {"part_ids": [own]} if path == "complete" else None
        reply = (
            send(hall, upload_id, b"x", **stranger)
            if path == "parts"
            else hall.post(f"/v1/uploads/{upload_id}/{path}", json, stranger)
        )
        assert (reply.status_code, reply.json["error"]["code"]) == (404, "not_found")
    assert len(stored(hall)) == 2


def test_two_who_complete_at_once_wait_for_one_join(hall: Hall) -> None:
    upload_id = begin(hall, 4)
    ids = [part(hall, upload_id, b"abcd")]
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(complete, hall, upload_id, ids) for _ in range(2)]
        hall.until_waiting(2)
        assert hall.post(f"/v1/uploads/{upload_id}/cancel").status_code == 409
        with hall.upkeep_running():
            first, second = (one.result() for one in both)
    assert first.json == second.json
    assert first.json["status"] == "completed"


def test_a_join_survives_the_store_being_away(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_id = begin(hall, 4)
    ids = [part(hall, upload_id, b"abcd")]
    read, tries = hall.services.store.read, []

    def fail_once(key: str, start: int = 0, end: int | None = None) -> Any:
        tries.append(key)
        if len(tries) == 1:
            raise StorageUnavailable("the artifact store does not answer")
        return read(key, start, end)

    monkeypatch.setattr(hall.services.store, "read", fail_once)
    monkeypatch.setattr("worker.upkeep.chore.RETRY_SECONDS", 0.01)
    with hall.upkeep_running():
        assert complete(hall, upload_id, ids).json["status"] == "completed"
    assert len(tries) == 2


def test_who_goes_away_finds_the_file_later(hall: Hall, database_url: str, tmp_path: Any) -> None:
    """A complete whose time is up says so, and goes on."""
    hall.close()
    patient = Hall(database_url, tmp_path, direct_seconds=0.05)
    try:
        upload_id = begin(patient, 4)
        ids = [part(patient, upload_id, b"abcd")]
        early = complete(patient, upload_id, ids)
        assert (early.status_code, early.json["error"]["code"]) == (504, "still_running")
        until(patient.upkeep)
        assert complete(patient, upload_id, ids).json["status"] == "completed"
    finally:
        patient.close()
