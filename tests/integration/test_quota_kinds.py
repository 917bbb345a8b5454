"""Nothing that makes a job gets past its tenant's limits, whatever it is and however it comes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.integration.media_case import BRIEF, FILMER, WRITER, MediaCase
from tests.integration.model_job_api_case import INT8

WORDS = {"model": WRITER, "prompt": "x"}
CALL = {"endpoint": "/v1/completions", "body": WORDS}
SAID = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'


@pytest.fixture(name="media")
def media_fixture(database_url: str, tmp_path: Path) -> Iterator[MediaCase]:
    case = MediaCase(database_url, tmp_path)
    yield case
    case.close()


def submissions(media: MediaCase) -> dict[str, tuple[str, dict[str, Any]]]:
    """What makes a job: its path and its body."""
    rows = media.upload().json["id"]
    examples = media.upload(SAID * 12, purpose="fine-tune").json["id"]
    table = media.upload(b"name\nx\n", filename="data.csv", purpose="user_data").json["id"]
    return {
        "call": ("/v1/jobs", CALL),
        "direct": ("/v1/completions", WORDS),
        "told": ("/v1/jobs", CALL | {"webhook": "https://example.com/hook"}),
        "response": ("/v1/responses", {"model": WRITER, "input": "x", "background": True}),
        "batch": ("/v1/batches", {"input_file_id": rows, "endpoint": "/v1/completions",
                                  "completion_window": "24h"}),
        "video": ("/v1/videos", {"model": FILMER, "prompt": "x"}),
        "campaign": ("/v1/campaigns", BRIEF),
        "tuning": ("/v1/fine_tuning/jobs", {"model": WRITER, "training_file": examples}),
        "evaluation": ("/v1/evaluations", {"models": [WRITER], "file": examples,
                                           "metric": "loss"}),
        "optimization": (f"/v1/models/{WRITER}/optimize", {"method": INT8,
                                                           "evaluation_file": examples}),
        "production": ("/v1/productions", {"template": "Praise {{ name }}", "model": WRITER,
                                           "data_file_id": table}),
        "import": ("/v1/models/import", {"suffix": "mine"}),
    }  # fmt: skip


def send(media: MediaCase, kind: str, path: str, body: dict[str, Any], key: str | None) -> Any:
    headers = media.key if key is None else media.key | {"Idempotency-Key": f"{kind} {key}"}
    if kind == "import":
        form = body | {"file": (io.BytesIO(b"PK"), "model.zip")}
        return media.client.post(path, data=form, headers=headers)
    return media.client.post(path, json=body, headers=headers)


def limited(media: MediaCase) -> None:
    """Nothing may be computed today: there is no room for work of any kind."""
    with media.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tenant_limits (tenant_id, daily_compute_seconds)"
                " SELECT id, 0 FROM tenants"
            )
        )


@pytest.mark.parametrize("key", [None, "once"], ids=["plain", "keyed"])
def test_no_kind_of_work_is_accepted_beyond_a_limit(media: MediaCase, key: str | None) -> None:
    assert media.post("/v1/webhook_signing_secret/rotate", {}).status_code == 200
    every = submissions(media)
    with media.begin() as connection:
        files = connection.execute(text("SELECT count(*) FROM files")).scalar()
    objects = media.services.store.keys("t/", limit=99)
    limited(media)
    for kind, (path, body) in every.items():
        refused = send(media, kind, path, body, key)
        assert refused.status_code == 429, (kind, refused.json)
        error = refused.json["error"]
        assert (error["code"], error["param"]) == ("quota_exceeded", "daily_compute_seconds"), kind
    with media.begin() as connection:
        for table in ("jobs", "shards", "reservations", "idempotency_keys"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0, table
        assert connection.execute(text("SELECT count(*) FROM files")).scalar() == files
        connection.execute(text("DELETE FROM tenant_limits"))
    assert media.services.store.keys("t/", limit=99) == objects
    for kind, (path, body) in every.items():
        if kind != "direct":  # which would wait for its answer
            accepted = send(media, kind, path, body, key)
            assert accepted.status_code in {200, 202}, (kind, accepted.json)
