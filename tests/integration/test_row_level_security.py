"""The second wall by itself: what Postgres shows when the first one, the code, forgets to ask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from sqlalchemy import Engine, event

from api.app import EXTENSION, create_app
from tests.architecture.test_bola import (
    EVERYBODYS,
    NOT_BY_TENANT,
    Operation,
    call,
    everything_there_is,
    operations,
)
from tests.integration.everything import Belongings, for_two_tenants
from tests.integration.media_case import MediaCase, media_fixture

__all__ = ["media_fixture"]

SAME_FOR_ALL = "/v1/webhook_event_types"
PREDICATE = re.compile(r"(?:\b\w+\.)?\btenant_id = %\(tenant\)s")


@pytest.fixture(name="both")
def two_tenants_fixture(media: MediaCase) -> tuple[Belongings, dict[str, str]]:
    """What the first tenant has; another tenant's key."""
    theirs, stranger, mine = for_two_tenants(media)
    shared = {value for values in mine.values() for value in values}
    own = {name: [one for one in values if one not in shared] for name, values in theirs.items()}
    return own | {"client_id": theirs["client_id"]}, stranger


def restart(media: MediaCase) -> None:
    """Another API on the same database, closed with the test."""
    media.app.extensions[EXTENSION].close()
    media.app = create_app(media.settings, bell=media.bell)
    media.client = media.app.test_client()
    media.services = media.app.extensions[EXTENSION]()


def first_of(theirs: Belongings, operation: Operation) -> dict[str, str]:
    return {name: theirs[name][0] for name in operation.names}


def by_ids(media: MediaCase) -> Iterator[Operation]:
    for operation in operations(media):
        if operation.names and operation.path not in NOT_BY_TENANT:
            yield operation


def lists(media: MediaCase) -> Iterator[Operation]:
    for operation in operations(media):
        if operation.verb == "get" and not operation.names and operation.path != SAME_FOR_ALL:
            yield operation


def test_without_the_setting_the_api_shows_nothing_and_changes_nothing(
    media: MediaCase, both: tuple[Belongings, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every route, called by who owns what it asks for. Their queries are as they always are."""
    theirs, _ = both
    before = everything_there_is(media)
    shown = {
        operation.path: call(media, operation, {}, media.key).text for operation in lists(media)
    }
    ids = {value for values in theirs.values() for value in values}
    restart(media)  # what was looked up before is forgotten
    for module in ("api.routing", "api.polling_again"):
        monkeypatch.setattr(f"{module}.acting_for", lambda *_: nullcontext())
    checked = 0
    for operation in by_ids(media):
        if (operation.verb, operation.path) in EVERYBODYS:
            continue
        reply = call(media, operation, first_of(theirs, operation), media.key)
        assert reply.status_code == 404, (operation.verb, operation.path, reply.text)
        checked += 1
    seen = 0
    for operation in lists(media):
        reply = call(media, operation, {}, media.key)
        assert reply.status_code < 500, (operation.path, reply.text)
        assert not [value for value in ids if value in reply.text], operation.path
        told = [one for one in reply.json.get("data", []) if one.get("results") != []]
        assert told == [], (operation.path, reply.text)  # days without usage are days all the same
        seen += any(value in shown[operation.path] for value in ids)
    assert media.client.get(f"/v1/jobs/{theirs['job_id'][0]}", headers=media.key).status_code == 404
    assert media.upload().status_code == 500  # it can't be written down
    assert everything_there_is(media) == before | {"files": everything_there_is(media)["files"]}
    assert checked >= 50
    assert seen >= 8


@contextmanager
def forgetful(*engines: Engine) -> Iterator[list[str]]:
    """The engines' statements without any ``tenant_id = …``; those that had one."""
    changed = []

    def forget(
        _connection: object, _cursor: object, statement: str, values: Any, *_: object
    ) -> tuple[str, Any]:
        without = PREDICATE.sub("CAST(%(tenant)s AS text) IS NOT NULL", statement)
        if without != statement:
            changed.append(statement)
        return without, values

    for engine in engines:
        event.listen(engine, "before_cursor_execute", forget, retval=True)
    try:
        yield changed
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", forget)


def leaks(
    media: MediaCase, theirs: Belongings, stranger: dict[str, str], *, only: str | None = None
) -> list[tuple[str, str]]:
    """Addresses that tell a stranger something, or change it, when no query asks whose it is."""
    services = media.app.extensions[EXTENSION]()
    secret = {value for name in set(theirs) - {"client_id"} for value in theirs[name]}
    found = []
    with forgetful(services.engine, services.autocommit) as changed:
        for operation in by_ids(media):
            address = (operation.verb, operation.path)
            if address in EVERYBODYS or only not in (None, operation.verb):
                continue
            reply = call(media, operation, first_of(theirs, operation), stranger)
            if reply.status_code != 404:
                found.append(address)
        for operation in lists(media):
            reply = call(media, operation, {}, stranger)
            if reply.status_code == 500 or [value for value in secret if value in reply.text]:
                found.append((operation.verb, operation.path))
    assert len(set(changed)) >= 20
    return found


def test_queries_that_forget_to_ask_whose_it_is_leak_nothing(
    media: MediaCase, both: tuple[Belongings, dict[str, str]]
) -> None:
    theirs, stranger = both
    before = everything_there_is(media)
    assert leaks(media, theirs, stranger) == []
    assert everything_there_is(media) == before


def test_without_the_wall_they_would(
    media: MediaCase, both: tuple[Belongings, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same calls of an API whose connections are the owner's: what the test above can see."""
    theirs, stranger = both
    monkeypatch.setattr("api.app.API_ROLE", None)
    restart(media)
    assert len(leaks(media, theirs, stranger, only="get")) >= 15
