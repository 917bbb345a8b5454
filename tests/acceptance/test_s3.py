"""The same batch with its files in a bucket, downloaded by presigned URL."""

from __future__ import annotations

from pathlib import Path

from tests.plant import chat_row, plant
from tests.services.swift import S3Bucket


def test_a_batch_through_a_bucket(
    tmp_path: Path, database_url: str, broker_url: str, s3_bucket: S3Bucket
) -> None:
    settings = {
        "STORAGE_DIR": "",
        "S3_BUCKET": s3_bucket.name,
        "S3_ENDPOINT": s3_bucket.endpoint_url,
        "S3_ACCESS_KEY": s3_bucket.access_key,
        "S3_SECRET_KEY": s3_bucket.secret_key,
        "S3_REGION": s3_bucket.region,
    }
    with plant(tmp_path / "plant", database_url, broker_url, settings=settings) as made:
        made.start()
        batch = made.wait_batch(made.submit_batch([chat_row(n) for n in range(1_000)]))

        assert batch.status == "completed"
        assert set(made.results(batch)) == {f"row-{n}" for n in range(1_000)}
        assert batch.output_file_id is not None
        with made.http() as http:
            answer = http.get(f"/v1/files/{batch.output_file_id}/content", follow_redirects=False)
        assert answer.status_code == 302
        assert answer.headers["location"].startswith(s3_bucket.endpoint_url)
