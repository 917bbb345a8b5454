"""Every error has a status, and one body."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api import objects
from api.app import create_app
from api.auth import new_key
from api.errors import STATUS
from shared.errors import PressrunError
from shared.settings import Settings

NO_DATABASE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing?connect_timeout=1"


def subclasses(base: type[PressrunError]) -> Iterator[type[PressrunError]]:
    for child in base.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize("error", [PressrunError, *subclasses(PressrunError)])
def test_every_error_has_a_status(error: type[PressrunError]) -> None:
    assert 400 <= STATUS[error.code] < 600


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    settings = Settings(
        database_url=NO_DATABASE,
        storage_dir=tmp_path / "store",
        scratch_dir=tmp_path / "scratch",
        signing_key="a signing key of some length",  # type: ignore[arg-type]
    )
    app = create_app(settings)

    def crash() -> str:
        raise RuntimeError("the secret prompt")

    app.add_url_rule("/crash", "crash", crash)
    return app.test_client()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/crash", 500, "internal_error"),
        ("GET", "/v1/jobs", 401, "invalid_api_key"),
        ("GET", "/v1/admin/tenants", 403, "forbidden"),
    ],
)
def test_every_way_out_is_a_problem(
    client: FlaskClient, method: str, path: str, status: int, code: str
) -> None:
    reply = client.open(path, method=method)
    assert reply.status_code == status
    assert reply.content_type == "application/problem+json"
    objects.Problem.model_validate(reply.json)
    assert reply.json["error"]["code"] == code
    assert reply.json["status"] == status
    assert "secret" not in reply.text
    assert reply.headers["x-request-id"] in reply.json["instance"]


def test_every_response_has_its_own_request_id_and_the_security_headers(
    client: FlaskClient,
) -> None:
    replies = [client.get("/healthz", headers={"x-request-id": "mine"}) for _ in range(2)]
    ids = {reply.headers["x-request-id"] for reply in replies}
    assert len(ids) == 2
    assert "mine" not in ids
    assert replies[0].headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in replies[0].headers["Content-Security-Policy"]


def test_405_says_what_is_allowed(client: FlaskClient) -> None:
    assert "GET" in client.delete("/healthz").headers["Allow"]


def test_without_a_database_a_request_is_told_to_come_back(client: FlaskClient) -> None:
    reply = client.get("/v1/jobs", headers={"Authorization": f"Bearer {new_key()}"})
    assert reply.status_code == 503
    assert reply.json["error"]["code"] == "database_unavailable"
    assert int(reply.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 503
    objects.Readiness.model_validate(ready.json)
    assert ready.json["database"] == "down"
