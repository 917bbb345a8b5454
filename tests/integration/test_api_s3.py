"""Files of an API whose store is a bucket: downloads go to the bucket itself."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.api_case import ApiCase, make_settings

if TYPE_CHECKING:
    from tests.services.swift import S3Bucket

CONTENT = b'{"custom_id":"1"}\n' * 1_000


@pytest.fixture
def api(database_url: str, s3_bucket: S3Bucket, tmp_path: Path) -> Iterator[ApiCase]:
    settings = make_settings(
        database_url,
        tmp_path,
        storage_dir=None,
        s3_bucket=s3_bucket.name,
        s3_endpoint=s3_bucket.endpoint_url,
        s3_region=s3_bucket.region,
        s3_access_key=s3_bucket.access_key,
        s3_secret_key=s3_bucket.secret_key,
    )
    case = ApiCase(settings)
    yield case
    case.close()


def test_a_file_is_fetched_from_the_bucket_by_a_signed_url(api: ApiCase) -> None:
    file_id = api.upload(CONTENT, filename="rows ü.jsonl").json["id"]
    found = api.get(f"/v1/files/{file_id}/content")
    assert found.status_code == 302
    url = found.headers["Location"]
    assert url.startswith(api.settings.s3_endpoint or "")
    with urllib.request.urlopen(url, timeout=30) as reply:
        assert reply.read() == CONTENT
        assert reply.headers["Content-Disposition"].startswith("attachment")


def test_the_bucket_serves_downloads_not_the_api(api: ApiCase) -> None:
    assert api.client.get("/v1/downloads/a.b").status_code == 404


def test_a_bucket_that_does_not_answer_is_503_and_nothing_is_accepted(
    database_url: str, tmp_path: Path
) -> None:
    settings = make_settings(
        database_url,
        tmp_path,
        storage_dir=None,
        s3_bucket="b",
        s3_endpoint="http://127.0.0.1:1",
        s3_access_key="x",
        s3_secret_key="x",
    )
    api = ApiCase(settings)
    try:
        reply = api.upload(CONTENT)
        assert reply.status_code == 503
        assert reply.json["error"]["code"] == "storage_unavailable"
        assert api.get("/v1/files").json["data"] == []
        assert list(settings.scratch_dir.iterdir()) == []
    finally:
        api.close()
