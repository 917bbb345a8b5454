"""``POST /v1/classifications``: a direct call, a job, and a model that must serve it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.media_objects import Classifications
from shared.db.models import sync_catalog
from shared.models_catalog import ModelEntry
from tests.integration.media_case import CATALOG, WRITER, Answer, MediaCase

TOPICS = "topics"
BODY = {"model": TOPICS, "input": ["A kettle that sings", "Ten men held on"], "top_k": 1}
FOUND: dict[str, Any] = {
    "object": "list",
    "model": TOPICS,
    "data": [
        {
            "object": "classification",
            "index": index,
            "truncated": False,
            "label": label,
            "score": 0.9,
            "scores": [{"label": label, "score": 0.9}],
        }
        for index, label in enumerate(["food", "sport"])
    ],
    "usage": {"prompt_tokens": 11, "total_tokens": 11},
}
SAID = Answer(lambda _ids: FOUND)


@pytest.fixture
def media(database_url: str, tmp_path: Path) -> Iterator[MediaCase]:
    case = MediaCase(database_url, tmp_path)
    with case.begin() as connection:
        sync_catalog(connection, [*CATALOG, ModelEntry(id=TOPICS, engine="classifier")])
    yield case
    case.close()


def test_a_call_answers_the_labels(media: MediaCase) -> None:
    with media.worker(SAID):
        reply = media.post("/v1/classifications", BODY)
    assert reply.status_code == 200, reply.text
    Classifications.model_validate(reply.json)
    assert reply.json == FOUND
    job = media.get(f"/v1/jobs/{reply.headers['x-pressrun-job']}").json
    assert (job["kind"], job["state"], job["endpoint"]) == (
        "generate", "succeeded", "/v1/classifications",
    )  # fmt: skip
    assert media.bell.rung == ["text"]
    assert "artifacts_url" not in job


def test_it_can_be_a_job(media: MediaCase) -> None:
    reply = media.post("/v1/jobs", {"endpoint": "/v1/classifications", "body": BODY})
    assert reply.status_code == 202, reply.text
    media.finish_next(SAID)
    done = media.get(f"/v1/jobs/{reply.json['id']}").json
    assert (done["state"], done["result"]) == ("succeeded", FOUND)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": WRITER}, "model_not_found", "model"),
        ({"input": []}, "invalid_request", "input"),
        ({"encoding_format": "float"}, "unsupported_parameter", "encoding_format"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    media: MediaCase, change: dict[str, Any], code: str, param: str
) -> None:
    reply = media.post("/v1/classifications", BODY | change)
    assert (reply.json["error"]["code"], reply.json["error"]["param"]) == (code, param)
    assert 400 <= reply.status_code < 500


def test_a_models_own_refusal_comes_back(media: MediaCase) -> None:
    said = Answer(code="unsupported_parameter", message="finds entities", param="top_k")
    with media.worker(said):
        reply = media.post("/v1/classifications", BODY)
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "top_k")
