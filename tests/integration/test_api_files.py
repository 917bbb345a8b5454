"""Files and downloads over HTTP."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api import objects
from api.limits import TRANSACTION_CONNECTIONS
from shared.db.file_retention import expired_files
from shared.errors import StorageUnavailable
from tests.integration.api_case import (
    ADMIN_KEY,
    PATIENCE_SECONDS,
    ApiCase,
    api_fixture,
    make_settings,
)

__all__ = ["api_fixture"]

THIRTY_DAYS = 30 * 86_400


def download(api: ApiCase, file_id: str, **headers: str) -> Any:
    found = api.get(f"/v1/files/{file_id}/content")
    assert found.status_code == 302
    return api.client.get(found.headers["Location"], headers=headers)


def test_a_file_comes_back_as_it_was_sent(api: ApiCase) -> None:
    content = os.urandom(3_000_000)
    file = api.upload(content, filename="in/../rows \u202eü.jsonl").json
    objects.File.model_validate(file)
    assert file["bytes"] == len(content)
    assert file["filename"] == "rows ü.jsonl"
    assert file["status"] == "processed"
    assert file["expires_at"] == file["created_at"] + THIRTY_DAYS
    assert api.get(f"/v1/files/{file['id']}").json == file
    reply = download(api, file["id"])
    assert reply.data == content
    assert reply.headers["Content-Length"] == str(len(content))
    assert reply.headers["Content-Disposition"].startswith("attachment")
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert list(api.settings.scratch_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=0-99", 206, b"0123456789"),
        ("bytes=0-9", 206, b"0123456789"),
        ("bytes=1-2,4-5", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("nonsense", 200, b"0123456789"),
    ],
)
def test_ranges(api: ApiCase, asked: str, status: int, expected: bytes) -> None:
    file_id = api.upload(b"0123456789").json["id"]
    reply = download(api, file_id, Range=asked)
    assert (reply.status_code, reply.data) == (status, expected)
    assert ("Content-Range" in reply.headers) == (status == 206)


def test_a_range_outside_the_file_is_416(api: ApiCase) -> None:
    reply = download(api, api.upload(b"0123456789").json["id"], Range="bytes=10-")
    assert reply.status_code == 416
    assert reply.headers["Content-Range"] == "bytes */10"
    assert reply.json["error"]["code"] == "range_not_satisfiable"


def test_an_empty_file_can_be_stored_and_read(api: ApiCase) -> None:
    reply = download(api, api.upload(b"").json["id"])
    assert (reply.status_code, reply.data) == (200, b"")


def test_a_download_url_cannot_be_made_up(api: ApiCase) -> None:
    location = api.get(f"/v1/files/{api.upload().json['id']}/content").headers["Location"]
    for token in ("x", location.rpartition("/")[2][:-1], "a.b", "%00"):
        assert api.client.get(f"/v1/downloads/{token}").status_code == 404


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "nothing"}, "purpose"),
        ({"purpose": ""}, "purpose"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
         "expires_after[anchor]"),
        ({"expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
         "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
         "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "1e5"},
         "expires_after[seconds]"),
    ],
)  # fmt: skip
def test_a_bad_form_field_is_named_and_nothing_is_kept(
    api: ApiCase, fields: dict[str, str], param: str
) -> None:
    reply = api.upload(**fields)
    assert reply.status_code == 400
    assert reply.json["error"]["param"] == param
    assert api.get("/v1/files").json["data"] == []
    assert list(api.settings.scratch_dir.iterdir()) == []


def test_a_life_can_be_chosen(api: ApiCase) -> None:
    chosen = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = api.upload(**chosen).json
    assert file["expires_at"] == file["created_at"] + 3_600
    assert api.upload(purpose="user_data").json["expires_at"] is None


def test_a_file_that_expired_is_gone(api: ApiCase) -> None:
    file_id = api.upload().json["id"]
    with api.begin() as connection:
        connection.execute(text("UPDATE files SET expires_at = clock_timestamp()"))
    assert api.get(f"/v1/files/{file_id}").status_code == 404
    assert api.get(f"/v1/files/{file_id}/content").status_code == 404
    assert api.get("/v1/files").json["data"] == []


def test_a_file_over_the_limit_is_refused(database_url: str, tmp_path: Path) -> None:
    api = ApiCase(make_settings(database_url, tmp_path, max_file_bytes=1024))
    try:
        assert api.upload(b"x" * 1024).status_code == 200
        for size in (1025, 3 * 2**20):
            reply = api.upload(b"x" * size)
            assert reply.status_code == 413
            assert reply.json["error"]["code"] == "payload_too_large"
        assert list(api.settings.scratch_dir.iterdir()) == []
    finally:
        api.close()


def test_a_deleted_file_is_gone_with_its_object(api: ApiCase) -> None:
    file_id = api.upload().json["id"]
    location = api.get(f"/v1/files/{file_id}/content").headers["Location"]
    gone = api.delete(f"/v1/files/{file_id}")
    assert gone.json == {"id": file_id, "object": "file", "deleted": True}
    objects.Deleted.model_validate(gone.json)
    assert api.delete(f"/v1/files/{file_id}").status_code == 404
    assert api.get(f"/v1/files/{file_id}").status_code == 404
    assert api.client.get(location).status_code == 404


def test_a_file_that_an_open_batch_reads_stays(api: ApiCase) -> None:
    batch_id = api.submit_batch()
    file_id = api.get(f"/v1/batches/{batch_id}").json["input_file_id"]
    refused = api.delete(f"/v1/files/{file_id}")
    assert refused.status_code == 409
    assert refused.headers["x-should-retry"] == "false"
    api.post(f"/v1/batches/{batch_id}/cancel")
    assert api.delete(f"/v1/files/{file_id}").status_code == 200


def test_with_the_store_down_nothing_is_accepted_and_nothing_lost(
    api: ApiCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = api.upload().json["id"]

    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("the artifact store does not answer")

    monkeypatch.setattr(api.services.store, "put_file", fail)
    reply = api.upload()
    assert reply.status_code == 503
    assert reply.json["error"]["code"] == "storage_unavailable"
    assert int(reply.headers["Retry-After"]) > 0
    monkeypatch.undo()
    assert [file["id"] for file in api.get("/v1/files").json["data"]] == [file_id]
    assert download(api, file_id).status_code == 200


def test_with_the_store_down_a_file_is_deleted_and_its_object_later(
    api: ApiCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = api.upload().json["id"]
    store = api.services.store

    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("the artifact store does not answer")

    monkeypatch.setattr(store, "delete", fail)
    assert api.delete(f"/v1/files/{file_id}").status_code == 200
    assert api.get(f"/v1/files/{file_id}").status_code == 404
    monkeypatch.undo()
    with api.begin() as connection:
        ((expired, key),) = expired_files(connection)
    assert expired == file_id
    assert store.size(key) > 0


def test_a_store_that_hangs_holds_up_no_other_call(
    api: ApiCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many deletes as there are connections for transactions, and one job to be cancelled."""
    files = [api.upload().json["id"] for _ in range(TRANSACTION_CONNECTIONS)]
    job_id = api.submit()
    hanging, answer = threading.Semaphore(0), threading.Event()

    def hang(*_: object, **__: object) -> None:
        hanging.release()
        assert answer.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(api.services.store, "delete", hang)
    with ThreadPoolExecutor(len(files)) as threads:
        replies = [
            threads.submit(
                lambda file: api.app.test_client().delete(f"/v1/files/{file}", headers=api.key),
                file,
            )
            for file in files
        ]
        try:
            for _ in files:
                assert hanging.acquire(timeout=PATIENCE_SECONDS)
            assert api.post(f"/v1/jobs/{job_id}/cancel").status_code in {200, 202}
        finally:
            answer.set()
        assert [reply.result().status_code for reply in replies] == [200] * len(files)


def test_the_content_is_at_the_address_that_partners_use(database_url: str, tmp_path: Path) -> None:
    settings = make_settings(database_url, tmp_path, public_url="https://press.example/")
    api = ApiCase(settings)
    try:
        file_id = api.upload().json["id"]
        location = api.get(f"/v1/files/{file_id}/content").headers["Location"]
        assert location.startswith("https://press.example/v1/downloads/")
    finally:
        api.close()


def test_a_list_goes_both_ways(api: ApiCase) -> None:
    files = [api.upload().json["id"] for _ in range(3)]
    other = api.upload(purpose="user_data").json["id"]
    page = api.get("/v1/files?limit=2").json
    objects.FileList.model_validate(page)
    assert [file["id"] for file in page["data"]] == [other, files[2]]
    rest = api.get(f"/v1/files?after={page['last_id']}").json
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == (files[1::-1], False)
    up = api.get("/v1/files?order=asc&purpose=batch").json["data"]
    assert [file["id"] for file in up] == files


@pytest.mark.parametrize("body", [b"", b"--x", b"--x--", b"--x\r\n\r\n", os.urandom(2_000)])
@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=x", "text/plain", "application/json",
     "multipart/form-data; boundary=" + "x" * 5_000, ""],
)  # fmt: skip
def test_what_is_no_upload_is_refused(api: ApiCase, body: bytes, content_type: str) -> None:
    reply = api.client.post(
        "/v1/files", data=body, headers=api.key | {"Content-Type": content_type}
    )
    assert reply.status_code in {400, 415}
    assert reply.json["error"]["code"] in {"invalid_request", "unsupported_media_type"}
    assert list(api.settings.scratch_dir.iterdir()) == []


def test_the_admin_key_has_no_files(api: ApiCase) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    assert api.client.get("/v1/files", headers=headers).status_code == 403
