"""Polls that bring a tag are answered before Flask is asked, and say what Flask would say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask, request_started
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api import polling_again
from shared.states import ShardState
from tests.integration.api_case import ApiCase, api_fixture
from tests.integration.test_api_jobs import claim, finish

__all__ = ["api_fixture"]

BAD_KEY = {"Authorization": "Bearer nobody's"}


@contextmanager
def counted(app: Flask) -> Iterator[list[Any]]:
    """The requests that Flask sees during the block."""
    seen: list[Any] = []

    def note(sender: Flask, **_: Any) -> None:
        seen.append(sender)

    with request_started.connected_to(note, app):
        yield seen


def test_one_statement_and_no_flask(api: ApiCase) -> None:
    path = f"/v1/jobs/{api.submit()}"
    whole = api.get(path)
    known = {"If-None-Match": whole.headers["ETag"]}
    api.get(path, known)  # what its pool did lately is looked up once in a while
    with counted(api.app) as seen, api.count_statements() as statements:
        reply = api.get(path, known)
    assert (reply.status_code, reply.data, len(statements), seen) == (304, b"", 1, [])
    for name in ("ETag", "Retry-After", "Cache-Control"):
        assert reply.headers[name] == whole.headers[name]
    assert reply.headers["x-request-id"].startswith("req_")


def test_a_job_that_went_on_is_told_whole(api: ApiCase) -> None:
    job_id = api.submit()
    path = f"/v1/jobs/{job_id}"
    known = {"If-None-Match": api.get(path).headers["ETag"]}
    with api.begin() as connection:
        session = api.open_session(connection)
        held = claim(connection, session).held
        finish(connection, session, held, ShardState.SUCCEEDED, result='{"a":1}')
    with counted(api.app) as seen:
        reply = api.get(path, known)
    assert (reply.status_code, reply.json["state"], len(seen)) == (200, "succeeded", 1)
    again = api.get(path, {"If-None-Match": f'"x", {reply.headers["ETag"]}'})
    assert again.status_code == 304
    assert "Retry-After" not in again.headers
    assert api.get(path, {"If-None-Match": "*"}).status_code == 304


def test_the_callers_own_id_will_do(api: ApiCase) -> None:
    body = {"endpoint": "/v1/completions", "body": {"model": "models/writer:1", "prompt": "x"}}
    assert api.client.put("/v1/jobs/mine.1", json=body, headers=api.key).status_code == 202
    tag = api.get("/v1/jobs/mine.1").headers["ETag"]
    with counted(api.app) as seen:
        assert api.get("/v1/jobs/mine.1", {"If-None-Match": tag}).status_code == 304
    assert seen == []


def test_what_is_wrong_is_said_as_ever(api: ApiCase) -> None:
    """Only the number of the request differs."""

    def said(path: str, headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        reply = api.get(path, headers)
        body = {key: value for key, value in reply.json.items() if key != "instance"}
        kept = {name: value for name, value in reply.headers if name != "x-request-id"}
        return reply.status_code, body, kept

    for name in ("job_0000000000000000000000000", "nobodys", "a b", "a/b", "ä"):
        for who in ({}, BAD_KEY, {"Authorization": ""}):
            path = f"/v1/jobs/{name}"
            assert said(path, who) == said(path, who | {"If-None-Match": '"x"'})


def test_another_tenants_job_is_nobodys(api: ApiCase) -> None:
    path = f"/v1/jobs/{api.submit()}"
    known = {"If-None-Match": api.get(path).headers["ETag"]}
    other = api.new_tenant()
    reply = api.app.test_client().get(path, headers=other | known)
    assert (reply.status_code, reply.json["error"]["code"]) == (404, "not_found")


def test_an_outage_is_asked_about_once(api: ApiCase, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def lose(*_: object) -> None:
        asked.append(1)
        raise PoolTimeout

    monkeypatch.setattr(polling_again, "known_as_it_is", lose)
    reply = api.get(f"/v1/jobs/{api.submit()}", {"If-None-Match": '"x"'})
    assert (reply.status_code, reply.json["error"]["code"]) == (503, "database_unavailable")
    assert reply.headers["Retry-After"]
    assert asked == [1]
