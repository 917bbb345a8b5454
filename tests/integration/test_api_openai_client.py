"""An unmodified ``openai`` client against gunicorn: only its base URL is ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from sqlalchemy import text

from shared.db.session import autocommit, make_engine
from tests.integration.api_case import ADMIN_KEY, MODEL, ApiCase, make_settings
from tests.services.ports import reserve_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 20.0
ROWS = b'{"custom_id":"1","method":"POST","url":"/v1/completions","body":{}}\n'


@dataclass(frozen=True)
class LiveServer:
    url: str
    key: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def live(database_url: str, tmp_path: Path) -> Iterator[LiveServer]:
    """Gunicorn as in production, one worker, stopped afterwards."""
    case = ApiCase(make_settings(database_url, tmp_path))
    key = case.key["Authorization"].removeprefix("Bearer ")
    case.close()
    port = reserve_port()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PRESSRUN_")
    } | {
        "PRESSRUN_DATABASE_URL": database_url,
        "PRESSRUN_STORAGE_DIR": str(tmp_path / "store"),
        "PRESSRUN_SCRATCH_DIR": str(tmp_path / "scratch"),
        "PRESSRUN_SIGNING_KEY": "a signing key of some length",
        "PRESSRUN_ADMIN_KEY": ADMIN_KEY,
    }
    with (tmp_path / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "api" / "gunicorn_conf.py"),
             "--workers", "1", "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "25"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _await_health(url, process, tmp_path / "gunicorn.log")
        yield LiveServer(url, key, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5) as reply:
                assert reply.status == 200
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def client_of(live: LiveServer, *, strict: bool) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{live.url}/v1",
        api_key=live.key,
        max_retries=0,
        timeout=30,
        _strict_response_validation=strict,
    )


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
def test_files_batches_and_models(live: LiveServer, strict: bool) -> None:
    with client_of(live, strict=strict) as client:
        file = client.files.create(
            file=("rows.jsonl", ROWS),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 86_400},
        )
        assert (file.bytes, file.status, file.purpose) == (len(ROWS), "processed", "batch")
        assert file.expires_at == file.created_at + 86_400
        assert client.files.retrieve(file.id) == file
        assert client.files.wait_for_processing(file.id, poll_interval=0.01) == file
        assert client.files.content(file.id).read() == ROWS
        others = [client.files.create(file=ROWS, purpose="user_data").id for _ in range(4)]
        listed = [found.id for found in client.files.list(limit=2)]
        assert listed == [*reversed(others), file.id]
        assert client.files.delete(others[0]).deleted

        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/completions",
            completion_window="24h",
            metadata={"a": "b"},
        )
        assert (batch.status, batch.metadata) == ("validating", {"a": "b"})
        assert client.batches.retrieve(batch.id) == batch
        more = [
            client.batches.create(
                input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
            ).id
            for _ in range(2)
        ]
        assert [found.id for found in client.batches.list(limit=1)] == [*more[::-1], batch.id]
        assert client.batches.cancel(batch.id).status == "cancelled"
        assert client.batches.cancel(batch.id).status == "cancelled"

        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).owned_by == "pressrun"


def test_errors_are_the_clients_own(live: LiveServer) -> None:
    with client_of(live, strict=True) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            client.files.retrieve("file-absent")
        assert missing.value.code == "not_found"
        assert missing.value.type == "not_found_error"
        assert (missing.value.request_id or "").startswith("req_")
        assert "no such file" in missing.value.message
        with pytest.raises(openai.BadRequestError) as bad:
            client.batches.create(
                input_file_id="x",
                endpoint="/v1/completions",
                completion_window="24h",
                extra_body={"colour": 1},
            )
        assert bad.value.param == "colour"
        file = client.files.create(file=ROWS, purpose="batch")
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        )
        with pytest.raises(openai.ConflictError) as conflict:
            client.with_options(max_retries=2).files.delete(file.id)
        assert conflict.value.response.request.headers["x-stainless-retry-count"] == "0"
    with (
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="pr_live_no", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        other.models.list()
    assert refused.value.code == "invalid_api_key"


def _request(live: LiveServer, path: str, body: object = None) -> dict[str, object]:
    request = urllib.request.Request(
        live.url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {live.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return dict(json.load(reply))


def _await_waiter(database_url: str) -> None:
    """Returns once the server asks the database on behalf of a long-poll."""
    engine = make_engine(database_url, process="test")
    asked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'pressrun-api' AND query LIKE '%AS a (id, version, event)%'"
    )
    deadline = time.monotonic() + START_SECONDS
    with autocommit(engine) as connection:
        while not connection.execute(asked).scalar():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    engine.dispose()


def test_a_stopping_server_answers_its_long_polls(live: LiveServer, database_url: str) -> None:
    """They would otherwise hold it for 25 seconds, and lose their answer."""
    body = {"endpoint": "/v1/completions", "body": {"model": MODEL, "prompt": "x"}}
    job = _request(live, "/v1/jobs", body)
    answers: list[dict[str, object]] = []
    poll = threading.Thread(
        target=lambda: answers.append(_request(live, f"/v1/jobs/{job['id']}?wait=25"))
    )
    poll.start()
    _await_waiter(database_url)
    start = time.monotonic()
    live.process.send_signal(signal.SIGTERM)
    assert live.process.wait(60) == 0
    assert time.monotonic() - start < STOP_SECONDS
    poll.join(10)
    assert [answer["state"] for answer in answers] == ["queued"]
