"""What a fuzzer of the API needs: real ids for addresses, real names for bodies, and checks.

Requests made of schemas alone would mostly be about things that don't exist. So ``Belongings``
knows what a tenant has, and ``adapt`` puts it where addresses and bodies name something.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests
from hypothesis import strategies as st
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)

from tests.plant import Plant, chat_row, wait_until

MODEL = "fake"
PICTURE = "an icon"
HOOK = {"name": "n", "url": "https://example.com/", "event_types": ["job.succeeded"]}
UPLOAD = {"filename": "r.jsonl", "purpose": "batch", "bytes": 3, "mime_type": "text/plain"}
TIMEOUT_SECONDS = 30.0
REAL_MODELS = st.sampled_from([MODEL, MODEL, MODEL, "fuzzed@production", "no-such-model"])
ENDPOINTS = st.sampled_from(
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/images/generations"]
)
LISTING_PAGE = 20


class Session(requests.Session):
    """Reads of an event stream the first message only: streams of living jobs don't end."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        reply = super().send(request, **(options | {"stream": True}))
        if reply.headers.get("Content-Type", "").startswith("text/event-stream"):
            lines = reply.iter_lines()
            reply._content = b"\n".join(iter(lambda: next(lines, b""), b"")) + b"\n\n"
            reply.close()
        else:
            assert reply.content is not None
        return reply


# --- what there is --------------------------------------------------------------------------------


@dataclass
class Belongings:
    """What a tenant of a plant has, by the names that addresses give to ids."""

    plant: Plant
    document: dict[str, Any]
    fixed: dict[str, list[str]] = field(default_factory=dict)
    """Of things that no address lists."""

    def of(self, path: str) -> dict[str, list[str]]:
        """For each parameter of ``path``: the ids to try, the newest of every listing."""
        found: dict[str, list[str]] = {}
        parts = path.split("/")
        for place, part in enumerate(parts):
            if part.startswith("{"):
                name = part[1:-1]
                listed = self._listed("/".join(parts[:place]))
                found[name] = [*self.fixed.get(name, []), *listed]
        return found

    def _listed(self, collection: str) -> list[str]:
        if "{" in collection or "get" not in self.document["paths"].get(collection, {}):
            return []
        if collection.startswith("/v1/admin"):
            return []
        with self.plant.http() as http:
            items = http.get(collection).json().get("data", [])
        return [str(item["id"]) for item in items[:LISTING_PAGE] if "id" in item]


def make_belongings(plant: Plant, document: dict[str, Any]) -> Belongings:
    """One of everything, as tenants make it."""
    other = plant.new_tenant("other")
    plant.new_key(other)
    keys = plant.admin("GET", f"/v1/admin/tenants/{other}/keys")["data"]
    with plant.http() as http:

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            return dict(http.post(path, json=body).raise_for_status().json())

        picture = {"model": MODEL, "prompt": PICTURE, "size": "64x64"}
        job = post("/v1/jobs", {"endpoint": "/v1/images/generations", "body": picture})
        words = {"model": MODEL, "prompt": "hello"}
        post("/v1/jobs", {"endpoint": "/v1/completions", "body": words})
        _upload(plant, "fine-tune", [{"messages": chat_row(0)["body"]["messages"]}] * 12)
        post("/v1/videos", {"model": MODEL, "prompt": PICTURE})
        post("/v1/campaigns", {"model": MODEL, "product": "a kettle", "languages": ["en"]})
        post("/v1/webhook_endpoints", HOOK)
        asked = {"model": MODEL, "input": "hello", "background": True}
        response = post("/v1/responses", asked)
        uploaded = post("/v1/uploads", UPLOAD)
        post("/v1/model_aliases", {"name": "fuzzed@production", "model": MODEL})
        plant.submit_batch([chat_row(number) for number in range(3)])
        wait_until(
            lambda: http.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded",
            TIMEOUT_SECONDS,
        )
        artifacts = http.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"]
        link = http.get(f"/v1/artifacts/{artifacts[0]['id']}").json()["url"]
    return Belongings(
        plant,
        document,
        {
            "artifact_id": [item["id"] for item in artifacts],
            "token": [link.rpartition("/")[2]],
            "tenant_id": [other],
            "key_id": [key["id"] for key in keys],
            "model_id": [MODEL],
            "response_id": [response["id"]],
            "upload_id": [uploaded["id"]],
        },
    )


def _upload(plant: Plant, purpose: str, rows: Sequence[Mapping[str, Any]]) -> str:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    file = plant.client().files.create(file=("rows.jsonl", data), purpose=purpose)  # type: ignore[arg-type]
    return file.id


# --- what is sent ---------------------------------------------------------------------------------


def adapt(case: Case, draw: Any, ids: Mapping[str, Sequence[str]], files: Sequence[str]) -> None:
    """Puts things that exist into most cases; the rest stay as the schema made them."""
    for name in case.path_parameters:
        if ids.get(name) and draw(st.integers(0, 3)) > 0:
            case.path_parameters[name] = draw(st.sampled_from(ids[name]))
    if isinstance(case.body, dict) and draw(st.integers(0, 3)) > 0:
        _name_real_things(case.body, draw, files)


def _name_real_things(body: dict[str, Any], draw: Any, files: Sequence[str]) -> None:
    for name, value in list(body.items()):
        if name == "model":
            body[name] = draw(REAL_MODELS)
        elif name in {"input_file_id", "training_file", "validation_file", "file_id"} and files:
            body[name] = draw(st.sampled_from(files))
        elif name == "endpoint":
            body[name] = draw(ENDPOINTS)
        elif name == "body" and isinstance(value, dict):
            body[name] = value | {"model": MODEL, "prompt": "x"}


# --- what is checked ------------------------------------------------------------------------------

WITHOUT_FAULT = {"503", "504", "507"}
"""What a server may say of itself, where its document says that it may."""


def no_server_error(_ctx: CheckContext, response: Response, _case: Case) -> bool | None:
    """No 500 ever; a direct call's time may be up."""
    code = response.status_code
    assert code < 500 or str(code) in WITHOUT_FAULT, f"answered {code}"
    return None


def documented_status(_ctx: CheckContext, response: Response, case: Case) -> bool | None:
    """The status is one that the operation names; its ``default`` does not count."""
    named = case.operation.definition.raw["responses"]
    assert str(response.status_code) in named, f"{response.status_code} is not in {list(named)}"
    return None


def problems_are_problems(_ctx: CheckContext, response: Response, _case: Case) -> bool | None:
    """Every refusal has the one content type, and a code that SDKs read."""
    if response.status_code >= 400:
        [content_type] = response.headers["content-type"]
        assert content_type == "application/problem+json"
        error = json.loads(response.content)["error"]
        assert error["code"]
        assert error["message"]
    return None


CHECKS = [
    no_server_error,
    documented_status,
    problems_are_problems,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
__all__ = ["CHECKS", "Belongings", "Session", "adapt", "make_belongings", "operations"]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every method and address of the document."""
    for path, item in document["paths"].items():
        for method in item:
            if method in {"get", "post", "put", "patch", "delete", "head", "options"}:
                yield method, path
