"""Whatever is sent to whichever POST, the answer is a 4xx with a code, soon, in little memory."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api import objects
from shared.specs import ENDPOINTS
from tests.integration.api_case import ADMIN, COMPLETION, MODEL, ApiCase, make_settings

RANDOM_BODIES = 300
FEW = 3

ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    -(2**70),
    1e308,
    0.5,
    "",
    "\0",
    "\ud800",
    "x" * 100_000,
    [],
    [[]],
    {},
    {"": None},
    {"\0": "\0"},
    {"\ud800": 1},
]

RAW_BODIES: dict[str, bytes] = {
    "empty": b"",
    "broken": b'{"endpoint": ',
    "two documents": b"{}{}",
    "NaN": b'{"priority": NaN}',
    "Infinity": b'{"expires_in_seconds": Infinity}',
    "huge float": b'{"expires_in_seconds": 1e999, "endpoint": "x", "body": {}}',
    "huge integer": b'{"priority": ' + b"9" * 10_000 + b"}",
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"body":' * 100_000 + b"1" + b"}" * 100_000,
    "deep within the decoder's depth": b'{"body":' + b"[" * 900 + b"]" * 900 + b"}",
    "member twice": b'{"priority": 1, "priority": 2}',
    "lone surrogate": b'{"endpoint": "\\ud800", "body": {"model": "\\udfff"}}',
    "NUL": b'{"endpoint": "\\u0000", "body": {"model": "\\u0000"}}',
    "raw NUL": b'{"endpoint": "\0"}',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "latin-1": b'{"endpoint": "\xfc"}',
    "a list": b"[]",
    "a string": b'"x"',
    "null": b"null",
}


@pytest.fixture(scope="module")
def api(
    postgres_server: Any, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiCase]:
    name = "api_fuzz"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    folder: Path = tmp_path_factory.mktemp("fuzz")
    case = ApiCase(make_settings(postgres_server.url_of(name), folder, key_cache_seconds=600))
    yield case
    case.close()
    with postgres_server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def tenant(api: ApiCase) -> str:
    return str(api.client.post("/v1/admin/tenants", json={"name": "t"}, headers=ADMIN).json["id"])


def posts(api: ApiCase) -> list[str]:
    """Every address that takes a POST with a JSON body, from the API's own document."""
    document = api.client.get("/openapi.json").json
    return [
        path
        for path, item in document["paths"].items()
        if "application/json" in item.get("post", {}).get("requestBody", {}).get("content", {})
    ]


def send(
    api: ApiCase, path: str, data: bytes, content_type: str | None = "application/json"
) -> Any:
    headers = dict(ADMIN if path.startswith("/v1/admin") else api.key)
    if content_type is not None:
        headers["Content-Type"] = content_type
    return api.client.post(path, data=data, headers=headers)


def assert_refused(reply: Any) -> None:
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.content_type == "application/problem+json"
    objects.Problem.model_validate(reply.json)


@pytest.mark.parametrize("name", RAW_BODIES)
def test_what_is_no_document_is_refused_everywhere(api: ApiCase, tenant: str, name: str) -> None:
    paths = posts(api)
    assert len(paths) >= 4
    for path in paths:
        assert_refused(send(api, path.replace("{tenant_id}", tenant), RAW_BODIES[name]))


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "a\tb"]
)
def test_another_content_type_is_415(api: ApiCase, tenant: str, content_type: str | None) -> None:
    for path in posts(api):
        reply = send(api, path.replace("{tenant_id}", tenant), b"{}", content_type)
        assert_refused(reply)
        assert reply.status_code == 415


def test_a_body_over_the_limit_is_413_and_is_not_kept(api: ApiCase, tenant: str) -> None:
    huge = b'{"x": "' + b"y" * (50 * 2**20) + b'"}'
    send(api, "/v1/jobs", huge)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in posts(api):
        reply = send(api, path.replace("{tenant_id}", tenant), huge)
        assert_refused(reply)
        assert reply.status_code == 413
    # What the test itself holds is counted in `before` already.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_odd_values_in_every_field(api: ApiCase) -> None:
    for field in ("endpoint", "body", "metadata", "priority", "expires_in_seconds", "other"):
        for value in ODD_VALUES:
            reply = send(api, "/v1/jobs", json.dumps(COMPLETION | {field: value}).encode())
            if reply.status_code != 202:
                assert_refused(reply)
    batch = {"input_file_id": "x", "endpoint": "/v1/completions", "completion_window": "1h"}
    for field in (*batch, "metadata", "output_expires_after", "other"):
        for value in ODD_VALUES:
            assert_refused(send(api, "/v1/batches", json.dumps(batch | {field: value}).encode()))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_odd_values_in_every_parameter_of_a_body(api: ApiCase, endpoint: str) -> None:
    fields = ("model", "messages", "prompt", "input", "temperature", "n", "stop", "seed", "user",
              "image", "mask", "size", "voice", "speed", "seconds", "pictures", "scenes", "logo",
              "product", "languages", "audiences", "sizes", "outputs")  # fmt: skip
    for field in fields:
        for value in ODD_VALUES:
            body = {"model": MODEL, field: value}
            document = {"endpoint": endpoint, "body": body}
            reply = send(api, "/v1/jobs", json.dumps(document).encode())
            if reply.status_code != 202:
                assert_refused(reply)


def test_random_damage_to_a_good_request(api: ApiCase) -> None:
    """Seeded: the same bodies every time."""
    chosen = random.Random(20_260_101)
    good = json.dumps(COMPLETION | {"metadata": {"a": "b"}, "priority": 1}).encode()
    for _ in range(RANDOM_BODIES):
        data = bytearray(good)
        for _ in range(chosen.randint(1, 4)):
            place = chosen.randrange(len(data))
            action = chosen.randrange(FEW)
            if action == 0:
                data[place] = chosen.randrange(256)
            elif action == 1:
                del data[place : place + chosen.randrange(1, 9)]
            else:
                data[place:place] = chosen.choice([b"\0", b"{", b"[", b'"', b",", b"1e9", b"\xff"])
            if not data:
                break
        reply = send(api, "/v1/jobs", bytes(data))
        if reply.status_code != 202:
            assert_refused(reply)


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs/%00", "/v1/jobs/%ff", "/v1/jobs/" + "x" * 4_000, "/v1/jobs/..%2f..", "/v1/files/%00",
     "/v1/files/%0a/content", "/v1/batches/%f0%9f%98%80", "/v1/models/%00", "/v1/models/%ff",
     "/v1/models/a%2f%2fb", "/v1/downloads/%ff.%ff", "/v1/jobs/x/events"],
)  # fmt: skip
def test_odd_addresses_do_not_exist(api: ApiCase, path: str) -> None:
    reply = api.get(path)
    assert_refused(reply)
    assert reply.status_code == 404


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/files", "/v1/batches", "/v1/models"])
@pytest.mark.parametrize("query", ["limit=%ff", "limit=-1", "after=%00", "after=%ff", "limit=٣"])
def test_odd_queries_are_refused_or_ignored(api: ApiCase, path: str, query: str) -> None:
    reply = api.get(f"{path}?{query}")
    if path == "/v1/models":
        assert reply.status_code == 200
    else:
        assert_refused(reply)
