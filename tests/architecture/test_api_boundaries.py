"""What the API may load, and that all of it is authenticated, documented and one tenant's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api import gunicorn_conf
from api.app import create_app
from shared.settings import Settings
from tests.integration.api_case import ADMIN, COMPLETION, RecordingBell, make_settings
from tests.integration.media_case import (
    MediaCase,
    media_fixture,
)

__all__ = ["media_fixture"]

ROOT = Path(__file__).resolve().parents[2]
NO_DATABASE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
OPEN_ROUTES = {"/v1/downloads/{token}"}
"""Under /v1 without a key: the URL itself is signed."""
VERBS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = make_settings(NO_DATABASE, tmp_path_factory.mktemp("api"))
    return dict(create_app(settings, bell=RecordingBell()).test_client().get("/openapi.json").json)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for verb in VERBS:
            if verb in item:
                yield verb, path, item[verb]


def fill(path: str, value: str) -> str:
    for part in path.split("/"):
        if part.startswith("{"):
            path = path.replace(part, value)
    return path


# --- the document ----------------------------------------------------------------------------


def test_the_document_is_valid_openapi_31(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


def test_every_route_is_documented(tmp_path: Path, document: dict[str, Any]) -> None:
    app = create_app(make_settings(NO_DATABASE, tmp_path), bell=RecordingBell())
    documented = {(verb, path) for verb, path, _ in operations(document)}
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}")
        for verb in {method.lower() for method in rule.methods or ()} & set(VERBS):
            if path != "/openapi.json":
                assert (verb, path) in documented


def test_every_operation_tells_its_answers_and_its_problems(document: dict[str, Any]) -> None:
    for verb, path, operation in operations(document):
        where = f"{verb} {path}"
        assert operation["summary"], where
        assert any(code.startswith(("2", "3")) for code in operation["responses"]), where
        assert "422" not in operation["responses"] or verb in {"post", "put"}, where
        if operation.get("security"):
            assert {"401", "403", "503"} <= set(operation["responses"]), where
        if "{" in path:
            assert "404" in operation["responses"], where
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= set(operation["responses"]), where


# --- authentication --------------------------------------------------------------------------


def test_every_v1_route_wants_a_key(tmp_path: Path) -> None:
    app = create_app(make_settings(NO_DATABASE, tmp_path), bell=RecordingBell())
    client = app.test_client()
    checked = 0
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}")
        if not path.startswith("/v1") or path in OPEN_ROUTES:
            continue
        for verb in {method.lower() for method in rule.methods or ()} & set(VERBS):
            for header in ({}, {"Authorization": "Bearer pr_live_wrong"}):
                reply = client.open(fill(path, "x"), method=verb.upper(), headers=header)
                assert reply.status_code == 401, (verb, path)
                checked += 1
    assert checked > 30


def test_tenants_do_not_administrate_and_the_administrator_owns_nothing(
    media: MediaCase, document: dict[str, Any]
) -> None:
    for verb, path, _ in operations(document):
        if not path.startswith("/v1") or path in OPEN_ROUTES:
            continue
        wrong = media.key if path.startswith("/v1/admin") else ADMIN
        reply = media.client.open(fill(path, "x"), method=verb.upper(), headers=wrong)
        assert reply.status_code == 403, (verb, path)


# --- one tenant's own ------------------------------------------------------------------------


def test_what_others_own_cannot_be_named_in_a_call(media: MediaCase) -> None:
    batch_id = media.submit_batch()
    body = {
        "input_file_id": media.get(f"/v1/batches/{batch_id}").json["input_file_id"],
        "endpoint": COMPLETION["endpoint"],
        "completion_window": "1h",
    }
    stranger = media.new_tenant()
    assert media.client.post("/v1/batches", json=body, headers=stranger).status_code == 404


# --- what is loaded --------------------------------------------------------------------------

_PROBE = """
import json, resource, sys
import api.wsgi
client = api.wsgi.app.test_client()
assert client.get("/healthz").status_code == 200
assert client.get("/openapi.json").status_code == 200
rss = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
print(json.dumps({"modules": sorted({name.partition(".")[0] for name in sys.modules}),
                  "rss_bytes": rss * 1024, "bell": "shared.doorbell" in sys.modules}))
"""


@pytest.mark.parametrize("store", ["directory", "bucket"])
def test_the_process_is_small_and_never_loads_a_model_library(tmp_path: Path, store: str) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PRESSRUN_")
    } | {
        "PRESSRUN_DATABASE_URL": NO_DATABASE,
        "PRESSRUN_SIGNING_KEY": "a signing key of some length",
        "PRESSRUN_SCRATCH_DIR": str(tmp_path / "scratch"),
    }
    if store == "directory":
        environment["PRESSRUN_STORAGE_DIR"] = str(tmp_path / "store")
    else:
        environment |= {"PRESSRUN_S3_BUCKET": "b", "PRESSRUN_S3_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"RSS of the API with a {store}: {found['rss_bytes'] / 2**20:.0f} MiB")
    assert not {"torch", "transformers", "diffusers", "worker", "numpy", "PIL", "av", "rich"} & set(
        found["modules"]
    )
    assert found["rss_bytes"] < 150_000_000


def test_gunicorn_is_configured_as_the_code_expects() -> None:
    assert gunicorn_conf.threads == Settings.model_fields["api_threads"].default
    assert gunicorn_conf.worker_class == "gthread"
    assert gunicorn_conf.control_socket_disable
