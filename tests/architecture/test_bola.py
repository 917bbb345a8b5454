"""For a tenant, nothing of another exists: every address with an id, called with another's.

The addresses come from the document of the API. One with an id of a new kind fails here until
``tests.integration.everything`` makes such a thing; one that reads a body, until ``BODIES`` has it.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from shared.db.columns import metadata
from tests.integration.everything import Belongings, for_two_tenants
from tests.integration.media_case import WRITER, MediaCase, media_fixture

__all__ = ["media_fixture"]

VERBS = ("get", "post", "put", "patch", "delete")
NOT_BY_TENANT = {"/v1/downloads/{token}"}
"""Whoever has such an address may read what it leads to: it is signed, and ends."""
EVERYBODYS = {("put", "/v1/jobs/{client_id}")}
"""Ids of the caller's own: the same one of two tenants means two jobs."""
NOTHING_YET = {
    ("get", "/v1/videos/{video_id}/content"),
    ("get", "/v1/campaigns/{campaign_id}/content"),
    ("get", "/v1/productions/{production_id}/output"),
}
"""404 for their owner too, until the job that makes it has ended."""
WAITS = {("post", "/v1/webhook_endpoints/{webhook_endpoint_id}/test")}
"""For a sender, which does not run here."""
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/batches/{batch_id}/retry"): {},
    ("post", "/v1/models/{model_id}/optimize"): {"method": {"type": "quantize", "scheme": "int8"}},
    ("post", "/v1/model_aliases/{alias_name}"): {"model": WRITER},
    ("post", "/v1/model_aliases/{alias_name}/rollback"): {},
    ("post", "/v1/monitors/{monitor_id}/texts"): {"texts": ["x"]},
    ("post", "/v1/uploads/{upload_id}/complete"): {"part_ids": ["part_x"]},
    ("post", "/v1/webhook_endpoints/{webhook_endpoint_id}"): {"name": "x"},
    ("post", "/v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret"): {},
    ("post", "/v1/webhook_endpoints/{webhook_endpoint_id}/replay"): {"since": 0},
    ("post", "/v1/webhook_endpoints/{webhook_endpoint_id}/test"): {"event_type": "job.failed"},
}


class Operation(NamedTuple):
    verb: str
    path: str
    described: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Of the ids in the address."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def operations(media: MediaCase) -> Iterator[Operation]:
    """Every operation of tenants, deletions last, and that of jobs after these: what they take away
    is called before."""
    paths = media.client.get("/openapi.json").json["paths"]
    found = [
        Operation(verb, path, item[verb])
        for path, item in paths.items()
        for verb in VERBS
        if verb in item and path.startswith("/v1") and not path.startswith("/v1/admin")
    ]
    return iter(
        sorted(found, key=lambda one: (one.verb == "delete", one.path == "/v1/jobs/{job_id}"))
    )


def call(
    media: MediaCase,
    operation: Operation,
    ids: dict[str, str],
    key: dict[str, str],
    query: str = "",
) -> Any:
    path = operation.path.format(**ids) + query
    described = operation.described.get("requestBody", {}).get("content", {})
    how: dict[str, Any] = {}
    if "application/json" in described:
        how = {"json": BODIES.get((operation.verb, operation.path))}
    elif described:
        how = {"data": {"data": (io.BytesIO(b"x"), "data")}}
    return media.client.open(path, method=operation.verb.upper(), headers=key, **how)


def everything_there_is(media: MediaCase) -> dict[str, tuple[int, int]]:
    """How many rows each table has, and the sum of their hashes; and how many files are kept."""
    counted = " UNION ALL ".join(
        f"SELECT '{name}', count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {name} t"
        for name in sorted(metadata.tables)
    )
    with media.begin() as connection:
        rows = connection.execute(text(counted)).all()
    files = [path for path in media.settings.storage_dir.rglob("*") if path.is_file()]
    return {row[0]: (row[1], row[2]) for row in rows} | {"files": (len(files), 0)}


def choices(names: list[str], mine: Belongings, theirs: Belongings) -> Iterator[dict[str, str]]:
    """Every way to put ids into an address of which at least one is another tenant's."""
    for owners in itertools.product((theirs, mine), repeat=len(names)):
        if theirs in owners:
            lists = [owner[name] for name, owner in zip(names, owners, strict=True)]
            for values in itertools.product(*lists):
                yield dict(zip(names, values, strict=True))


@pytest.fixture(name="both")
def two_tenants_fixture(media: MediaCase) -> tuple[Belongings, dict[str, str], Belongings]:
    """What the first tenant has; another tenant's key, and what that has."""
    theirs, stranger, mine = for_two_tenants(media)
    # The same id of its caller's own choice names another job.
    theirs["job_id"] = [value for value in theirs["job_id"] if value not in mine["client_id"]]
    return theirs, stranger, mine


def test_every_id_of_another_tenant_is_404_and_changes_nothing(
    media: MediaCase, both: tuple[Belongings, dict[str, str], Belongings]
) -> None:
    theirs, stranger, mine = both
    before = everything_there_is(media)
    checked = 0
    for operation in operations(media):
        address = (operation.verb, operation.path)
        if not operation.names or operation.path in NOT_BY_TENANT or address in EVERYBODYS:
            continue
        for ids in choices(operation.names, mine, theirs):
            reply = call(media, operation, ids, stranger)
            assert reply.status_code == 404, (*address, ids, reply.status_code, reply.text)
            assert not set(ids.values()) & set(reply.text.replace('"', " ").split())
        assert everything_there_is(media) == before, address
        checked += 1
    assert checked >= 50


def test_the_owner_is_not_told_404(
    media: MediaCase, both: tuple[Belongings, dict[str, str], Belongings]
) -> None:
    """The other half: what the first test calls does exist, by the very same requests."""
    theirs = both[0]
    missing = set()
    for operation in operations(media):
        address = (operation.verb, operation.path)
        if operation.names and address not in NOTHING_YET | WAITS | EVERYBODYS:
            if operation.path in NOT_BY_TENANT:
                continue
            for values in itertools.product(*(theirs[name] for name in operation.names)):
                ids = dict(zip(operation.names, values, strict=True))
                if call(media, operation, ids, media.key).status_code == 404:
                    missing.add((*address, values))
    assert missing == set()


def test_lists_of_a_tenant_show_nothing_of_another(
    media: MediaCase, both: tuple[Belongings, dict[str, str], Belongings]
) -> None:
    """Whatever a list is asked for: from the start, after another's id, or with another's id."""
    theirs, stranger, mine = both
    secret = {value for values in theirs.values() for value in values}
    secret -= {value for values in mine.values() for value in values}
    lists = 0
    for operation in operations(media):
        if operation.verb != "get" or operation.names:
            continue
        queries = [""]
        for parameter in operation.described.get("parameters", []):
            if parameter["in"] == "query" and parameter["schema"].get("type") == "string":
                queries += [f"?{parameter['name']}={value}" for value in secret]
        for query in queries:
            reply = call(media, operation, {}, stranger, query)
            assert reply.status_code < 500, (operation.path, query)
            shown = reply.text if reply.status_code == 200 else ""
            assert not [value for value in secret if value in shown], (operation.path, query)
        lists += 1
    assert lists >= 12
