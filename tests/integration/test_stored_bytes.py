"""The quota of stored bytes: what does not fit is not read in, not kept and not left behind."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.integration.api_case import ADMIN, ApiCase, api_fixture

__all__ = ["api_fixture"]

KIB = 1024


def limit(api: ApiCase, stored: int) -> None:
    newest = api.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]["id"]
    body = {"limits": {"stored_bytes": stored}}
    path = f"/v1/admin/tenants/{newest}"
    assert api.client.patch(path, json=body, headers=ADMIN).status_code == 200


def held(api: ApiCase) -> int:
    return int(api.get("/v1/limits").json["held"]["stored_bytes"])


def is_refused(reply: Any) -> bool:
    if reply.status_code == 200:
        return False
    assert (reply.status_code, reply.json["error"]["code"]) == (429, "quota_exceeded"), reply.json
    assert reply.json["error"]["param"] == "stored_bytes"
    assert reply.headers["x-should-retry"] == "false"
    return True


def objects(api: ApiCase) -> int:
    """Files of the store."""
    folder = api.settings.storage_dir
    assert folder is not None
    return sum(1 for path in folder.rglob("t/*/[fu]/**/*") if path.is_file())


def test_files_fill_the_quota_to_the_byte(api: ApiCase) -> None:
    limit(api, 10 * KIB)
    assert not is_refused(api.upload(b"x" * 4 * KIB))
    first = api.upload(b"x" * 6 * KIB)
    assert not is_refused(first)
    assert is_refused(api.upload(b"x"))
    assert api.delete(f"/v1/files/{first.json['id']}").status_code == 200
    assert is_refused(api.upload(b"x" * (6 * KIB + 1)))
    assert not is_refused(api.upload(b"x" * 6 * KIB))
    assert held(api) == 10 * KIB


def test_uploads_at_once_do_not_pass_it_together(api: ApiCase) -> None:
    limit(api, 10 * KIB)

    def upload(_: int) -> Any:
        form = {"purpose": "batch", "file": (io.BytesIO(b"x" * 3 * KIB), "rows.jsonl")}
        return api.app.test_client().post("/v1/files", data=form, headers=api.key)

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(upload, range(8)))
    assert sum(not is_refused(reply) for reply in replies) == 3
    assert held(api) == 9 * KIB
    assert objects(api) == 3


class Endless(io.RawIOBase):
    """A body that counts what was read of it."""

    def __init__(self, beginning: bytes) -> None:
        self._beginning = beginning
        self.read_n = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._beginning or b"x" * len(buffer)
        part, self._beginning = data[: len(buffer)], data[len(buffer) :] if self._beginning else b""
        buffer[: len(part)] = part
        self.read_n += len(part)
        return len(part)


def send(api: ApiCase, body: Endless, **environ: Any) -> Any:
    return api.client.post(
        "/v1/files",
        content_type=f"multipart/form-data; boundary={'b' * 20}",
        headers=api.key,
        environ_overrides={"wsgi.input": io.BufferedReader(body), **environ},
    )


BEGINNING = (
    b"--"
    + b"b" * 20
    + b'\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
)


def test_a_body_that_says_that_it_is_too_large_is_not_read(api: ApiCase) -> None:
    limit(api, 10 * KIB)
    body = Endless(BEGINNING)
    assert is_refused(send(api, body, CONTENT_LENGTH=str(100 * 2**20)))
    assert body.read_n < 2**20


def test_a_body_that_does_not_say_how_large_it_is_is_cut_off(api: ApiCase) -> None:
    limit(api, 10 * KIB)
    body = Endless(BEGINNING)
    reply = send(api, body, **{"wsgi.input_terminated": True, "CONTENT_LENGTH": ""})
    assert is_refused(reply)
    assert body.read_n < 4 * 2**20
    assert objects(api) == 0


def test_parts_count_and_what_is_announced_must_fit(api: ApiCase) -> None:
    limit(api, 10 * KIB)
    asked = {"filename": "r.jsonl", "purpose": "batch", "mime_type": "text/plain"}
    assert is_refused(api.post("/v1/uploads", asked | {"bytes": 10 * KIB + 1}))
    upload = api.post("/v1/uploads", asked | {"bytes": 8 * KIB}).json["id"]
    path = f"/v1/uploads/{upload}/parts"

    def part(size: int) -> Any:
        form = {"data": (io.BytesIO(b"x" * size), "data")}
        return api.client.post(path, data=form, headers=api.key)

    assert not is_refused(part(6 * KIB))
    assert held(api) == 6 * KIB
    assert is_refused(part(5 * KIB))
    assert is_refused(api.upload(b"x" * 5 * KIB))
    assert not is_refused(part(4 * KIB))
    assert (held(api), objects(api)) == (10 * KIB, 2)
