"""Imports over HTTP: submitting, looking, cancelling, and what is refused at once."""

from __future__ import annotations

import io
from typing import Any

import pytest

from shared.lifecycle import BadLine, working
from shared.lifecycle.working import NewModel
from shared.pools import UPKEEP
from tests.integration.api_case import MODEL, ApiCase, api_fixture

__all__ = ["api_fixture"]

IMPORT, IMPORTS = "/v1/models/import", "/v1/models/imports"


def post_form(api: ApiCase, data: bytes = b"PK", **fields: Any) -> Any:
    headers = api.key | fields.pop("headers", {})
    form = {"suffix": "mine", "file": (io.BytesIO(data), "model.zip")} | fields
    return api.client.post(IMPORT, data=form, headers=headers)


def submitted(api: ApiCase, **fields: Any) -> dict[str, Any]:
    reply = post_form(api, **fields)
    assert reply.status_code == 202, reply.json
    return dict(reply.json)


def claimed(api: ApiCase) -> tuple[str, Any]:
    with api.begin() as connection:
        session = api.open_session(connection)
    with api.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        [claim] = working.claim(
            connection, session_id=session, pools=[UPKEEP], max_shards=1, max_rows=1
        )
    return session, claim


def test_a_form_becomes_a_job_and_a_file(api: ApiCase) -> None:
    reply = post_form(api, b"PK zip", base_model=MODEL)
    assert reply.status_code == 202, reply.json
    shown = reply.json
    assert reply.headers["Location"] == f"{IMPORTS}/{shown['id']}"
    assert (shown["object"], shown["status"]) == ("model.import", "queued")
    assert (shown["suffix"], shown["base_model"], shown["model"]) == ("mine", MODEL, None)
    assert api.bell.rung == [UPKEEP]
    file = api.get(f"/v1/files/{shown['file']}").json
    assert (file["purpose"], file["bytes"], file["filename"]) == ("model", 6, "model.zip")
    assert file["expires_at"] > file["created_at"]
    assert api.delete(f"/v1/files/{shown['file']}").status_code == 409  # it is to be read
    job = api.get(f"/v1/jobs/{shown['id']}").json
    assert job["kind"] == "import"
    assert [one["id"] for one in api.get(IMPORTS).json["data"]] == [shown["id"]]


@pytest.mark.parametrize("purpose", ["model", "assistants"])
def test_an_uploaded_file_is_named_by_id(api: ApiCase, purpose: str) -> None:
    file_id = api.upload(b"PK", filename="m.zip", purpose=purpose).json["id"]
    reply = api.post(IMPORT, {"file": file_id, "suffix": "x", "metadata": {"a": "b"}})
    assert reply.status_code == 202, reply.json
    assert (reply.json["file"], reply.json["metadata"]) == (file_id, {"a": "b"})


def test_the_end_is_shown(api: ApiCase) -> None:
    first = submitted(api)
    session, claim = claimed(api)
    assert claim.kind == "import"
    problems = [BadLine("pickle_refused", "a.bin: no", None, "a.bin"), BadLine("x", "y")]
    with api.begin() as connection:
        assert working.reject_import(connection, session, claim.held, errors=problems)
    error = api.get(f"{IMPORTS}/{first['id']}?wait=1").json["error"]
    assert (error["code"], error["param"]) == ("pickle_refused", "a.bin")
    assert [file["code"] for file in error["files"]] == ["pickle_refused", "x"]

    second = submitted(api)
    session, claim = claimed(api)
    detail = {"imported": {"architecture": "LlamaForCausalLM"}, "digest": "d"}
    model = NewModel(id="import:t:mine:1", pool="text", engine="text", detail=detail)
    with api.begin() as connection:
        assert working.finish_import(connection, session, claim.held, model)
    shown = api.get(f"{IMPORTS}/{second['id']}").json
    assert (shown["status"], shown["model"]) == ("succeeded", "import:t:mine:1")
    assert shown["report"] == detail["imported"]
    listed = api.get("/v1/models/import:t:mine:1").json
    assert listed["pressrun"]["job_id"] == second["id"]
    assert api.delete("/v1/models/import:t:mine:1").status_code == 200


def test_a_key_makes_one_import(api: ApiCase) -> None:
    once = {"headers": {"Idempotency-Key": "k"}}
    first = submitted(api, data=b"PK1", **once)
    assert submitted(api, data=b"PK1", **once)["id"] == first["id"]
    assert post_form(api, b"PK2", **once).status_code == 422
    assert len(api.get("/v1/files").json["data"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"suffix": "x"}, 400, "file"),
        ({"file": "file-x"}, 400, "suffix"),
        ({"file": "file-x", "suffix": "a/b"}, 400, "suffix"),
        ({"file": "file-x", "suffix": "x", "extra": 1}, 400, "extra"),
        ({"file": "file-x", "suffix": "x"}, 404, "file"),
        ({"file": "../x", "suffix": "x"}, 404, "file"),
        ({"file": "file-x", "suffix": "x", "metadata": {"a": "\0"}}, 400, "metadata"),
        ([], 400, None),
    ],
)
def test_bodies_that_are_refused(api: ApiCase, body: Any, status: int, param: str | None) -> None:
    reply = api.post(IMPORT, body)
    assert (reply.status_code, reply.json["error"]["param"]) == (status, param)


def test_files_and_models_that_are_not_for_this(api: ApiCase) -> None:
    batch = api.upload().json["id"]
    reply = api.post(IMPORT, {"file": batch, "suffix": "x"})
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "file")
    for name in ("nobody", "no\0body", "a@b"):
        reply = post_form(api, base_model=name)
        assert (reply.status_code, reply.json["error"]["code"]) == (404, "model_not_found")
    assert [file["id"] for file in api.get("/v1/files").json["data"]] == [batch]
    stored = api.settings.storage_dir
    assert stored is not None
    assert sum(path.is_file() for path in stored.rglob("file-*")) == 1  # nothing is left behind
    for form in ({"more": "x"}, {"other": (io.BytesIO(b"x"), "x")}, {"suffix": ""}):
        assert post_form(api, **form).status_code == 400


def test_imports_are_their_tenants_own_and_can_be_cancelled(api: ApiCase) -> None:
    shown = submitted(api)
    other = api.new_tenant()
    assert api.get(f"{IMPORTS}/{shown['id']}", headers=other).status_code == 404
    assert api.get(IMPORTS, headers=other).json["data"] == []
    theirs = api.client.post(f"{IMPORTS}/{shown['id']}/cancel", headers=other)
    assert theirs.status_code == 404
    stolen = api.client.post(IMPORT, json={"file": shown["file"], "suffix": "x"}, headers=other)
    assert (stolen.status_code, stolen.json["error"]["param"]) == (404, "file")
    for _ in range(2):
        assert api.post(f"{IMPORTS}/{shown['id']}/cancel").json["status"] == "cancelled"
    job = api.submit()
    assert api.post(f"{IMPORTS}/{job}/cancel").status_code == 404
    assert api.get(f"{IMPORTS}/{job}").status_code == 404
