"""What unmodified ``openai`` clients need of a server: their retries, lists, forms and errors, one
test for each; and one script of calls, by the newest client and the last of generation 1."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import text

from shared.models_catalog import ModelEntry
from tests.acceptance.sdk_script import PICTURE, ROW, lines
from tests.plant import ROOT, Plant, plant

SCRIPT = ROOT / "tests" / "acceptance" / "sdk_script.py"
CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "once"}]}
ALL = ["files", "uploads", "batches", "models", "inference", "images", "speech", "fine_tuning"]


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, database_template: str, postgres_server: Any
) -> Iterator[Plant]:
    """One for all: each test makes what it asks about."""
    name = "sdk_contract"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    folder = tmp_path_factory.mktemp("sdk contract") / "plant"
    settings = {"POLL_SECONDS": "0.1"}
    models = [ModelEntry(id="fake", engine="fake")]
    with plant(folder, postgres_server.url_of(name), models=models, settings=settings) as made:
        yield made.start()


class Wire(httpx2.BaseTransport):
    """The network of one client: loses the first answer if told to, and counts what is sent."""

    def __init__(self, *, lose: bool = False) -> None:
        self._inner = httpx2.HTTPTransport()
        self._lose = lose
        self.sent: list[httpx2.Request] = []
        self.statuses: list[int] = []
        self.on_answer: Any = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(request)
        response = self._inner.handle_request(request)
        self.statuses.append(response.status_code)
        if self._lose and len(self.sent) == 1:
            response.read()
            raise httpx2.ReadError("the answer was lost")
        if self.on_answer is not None:
            self.on_answer(response.status_code)
        return response


def client_on(running: Plant, wire: Wire, **options: Any) -> openai.OpenAI:
    return running.client(http_client=openai.DefaultHttpxClient(transport=wire), **options)


def count(running: Plant, table: str) -> int:
    return int(running.scalar(f"SELECT count(*) FROM {table}"))


# --- 1, 2: retries --------------------------------------------------------------------------------


def batch_terms(running: Plant) -> dict[str, Any]:
    given = running.client().files.create(file=("rows.jsonl", lines(ROW)), purpose="batch")
    return {
        "input_file_id": given.id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }


@pytest.mark.parametrize("kind", ["chat", "batch", "file", "picture", "video"])
def test_an_answer_lost_on_the_wire_costs_no_second_job(running: Plant, kind: str) -> None:
    terms = batch_terms(running) if kind == "batch" else {}
    wire = Wire(lose=True)
    client = client_on(running, wire)
    table = "files" if kind == "file" else "jobs"
    before = count(running, table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if kind == "chat":
            assert client.chat.completions.create(**CHAT).choices[0].message.content
        elif kind == "batch":
            assert client.batches.create(**terms).id
        elif kind == "file":
            assert client.files.create(file=("r.jsonl", lines(ROW)), purpose="batch").id
        elif kind == "picture":
            edited = client.images.edit(
                model="fake", image=("in.png", PICTURE, "image/png"), prompt="x"
            )
            assert edited.data
        else:
            assert client.videos.create(model="fake", prompt="once", seconds="4").id
    assert [request.headers["x-stainless-retry-count"] for request in wire.sent] == ["0", "1"]
    assert wire.statuses == [200, 200]
    assert count(running, table) == before + 1


def test_the_same_call_twice_is_two_jobs(running: Plant) -> None:
    before = count(running, "jobs")
    for _ in range(2):
        running.client().chat.completions.create(**CHAT)
    assert count(running, "jobs") == before + 2


def test_a_key_in_use_is_asked_for_again_by_the_client_itself(running: Plant) -> None:
    wire = Wire()

    def free(status: int) -> None:
        if status == 409:
            with running.engine.begin() as connection:
                connection.execute(text("DELETE FROM idempotency_keys WHERE key = 'sdk-key'"))

    headers = {"Idempotency-Key": "sdk-key"}
    client = client_on(running, wire)

    def ask() -> str:
        raw = client.chat.completions.with_raw_response.create(**CHAT, extra_headers=headers)
        return str(raw.headers["x-pressrun-job"])

    first = ask()
    assert ask() == first
    with running.engine.begin() as connection:
        connection.execute(
            text("UPDATE idempotency_keys SET job_id = NULL, claim = 'x',"
                 " claimed_at = clock_timestamp() WHERE key = 'sdk-key'")
        )  # fmt: skip
    wire.on_answer = free
    assert ask() != first
    assert wire.statuses == [200, 200, 409, 200]
    with pytest.raises(openai.UnprocessableEntityError) as other:
        client.chat.completions.create(**(CHAT | {"seed": 5}), extra_headers=headers)
    assert (other.value.code, other.value.param) == ("idempotency_mismatch", "Idempotency-Key")


def test_a_real_conflict_is_not_retried(running: Plant) -> None:
    batch_id = running.client().batches.create(**batch_terms(running)).id
    running.wait_batch(batch_id)
    wire = Wire()
    with pytest.raises(openai.ConflictError) as refused:
        client_on(running, wire).batches.cancel(batch_id)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(wire.sent) == 1


def test_retry_after_is_short_enough_to_be_obeyed() -> None:
    from api.errors import RETRY_AFTER_SECONDS

    # Generation 1 obeys a minute at most, generation 3 two.
    assert max(RETRY_AFTER_SECONDS.values()) <= 60


# --- 3, 5, 12, 13: answers ------------------------------------------------------------------------


def test_errors_are_understood(running: Plant) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        running.client().chat.completions.create(**CHAT, temperature=9)
    error = refused.value
    assert (error.code, error.type) == ("invalid_request", "invalid_request_error")
    assert error.param == "temperature"
    assert "temperature" in error.message
    assert error.request_id == error.response.headers["x-request-id"]
    assert (error.request_id or "").startswith("req_")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/batches", 405), ("GET", "/files/x%00", 404)],
)
def test_every_answer_is_json(running: Plant, method: str, path: str, status: int) -> None:
    with running.http() as http:
        answer = http.request(method, "/v1" + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_what_is_created_is_answered_200(running: Plant) -> None:
    raw = running.client().batches.with_raw_response.create(**batch_terms(running))
    assert raw.status_code == 200
    file = running.client().files.with_raw_response.create(
        file=("r.jsonl", lines(ROW)), purpose="batch"
    )
    assert (file.status_code, file.headers["content-type"]) == (200, "application/json")


def test_absent_ids_are_null(running: Plant) -> None:
    raw = running.client().batches.with_raw_response.create(**batch_terms(running))
    members = json.loads(raw.text)
    assert "" not in members.values()
    assert [members[name] for name in ("output_file_id", "error_file_id", "errors")] == [None] * 3


# --- 6 to 11: lists, files, forms ----------------------------------------------------------------


def test_lists_end(running: Plant) -> None:
    client = running.client()
    made = [
        client.files.create(file=("r.jsonl", lines(ROW)), purpose="assistants").id for _ in range(3)
    ]
    wire = Wire()
    listed = client_on(running, wire).files.list(limit=1, purpose="assistants")
    assert [file.id for file in listed] == made[::-1]
    assert len(wire.sent) <= len(made) + 1
    batches = [client.batches.create(**batch_terms(running)).id for _ in range(2)]
    assert [batch.id for batch in client.batches.list(limit=1)][:2] == batches[::-1]


def test_a_file_is_processed_at_once(running: Plant) -> None:
    client = running.client()
    made = client.files.create(file=("r.jsonl", lines(ROW)), purpose="batch")
    wire = Wire()
    waited = client_on(running, wire).files.wait_for_processing(made.id)
    assert (waited.status, len(wire.sent)) == ("processed", 1)


def test_content_is_found_behind_a_redirect(running: Plant) -> None:
    made = running.client().files.create(file=("r.jsonl", lines(ROW)), purpose="batch")
    wire = Wire()
    assert client_on(running, wire).files.content(made.id).read() == lines(ROW)
    assert wire.statuses == [302, 200]
    assert wire.sent[0].headers["accept"] == "application/binary"
    with httpx2.Client() as stranger:  # the link is enough: the key need not travel
        assert stranger.get(wire.sent[1].url).content == lines(ROW)


def test_forms_nest_in_brackets(running: Plant) -> None:
    made = running.client().files.create(
        file=("r.jsonl", lines(ROW)),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert made.expires_at == made.created_at + 7200


def test_labels_in_a_query_are_read(running: Plant) -> None:
    client = running.client()
    example = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    }
    given = client.files.create(file=("t.jsonl", lines(*[example] * 12)), purpose="fine-tune")
    jobs = [
        client.fine_tuning.jobs.create(
            model="fake", training_file=given.id, metadata={"a b": label}
        ).id
        for label in ("ü&=]", "other")
    ]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"a b": "ü&=]"})] == jobs[:1]


def test_304_is_for_those_who_ask(running: Plant) -> None:
    client = running.client()
    with running.http() as http:
        job = http.post("/v1/jobs", json={"endpoint": "/v1/chat/completions", "body": CHAT}).json()
        http.get(f"/v1/jobs/{job['id']}", params={"wait": 30})
        path = f"/jobs/{job['id']}"
        assert client.get(path, cast_to=object) == client.get(path, cast_to=object)
        tag = http.get("/v1" + path).headers["etag"]
        assert http.get("/v1" + path, headers={"If-None-Match": tag}).status_code == 304


def test_a_poll_is_told_when_to_come_again(running: Plant) -> None:
    raw = running.client().videos.with_raw_response.create(model="fake", prompt="x", seconds="4")
    # In milliseconds; the client's own helper sleeps so long.
    assert 1_000 <= int(raw.headers["openai-poll-after-ms"]) <= 120_000
    assert (raw.parse().seconds, raw.parse().object) == ("4", "video")


# --- 4, 16: two generations, loose and strict -----------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["loose", "strict"])
@pytest.mark.parametrize("generation", [1, 3])
def test_a_day_of_a_client(
    running: Plant, request: pytest.FixtureRequest, generation: int, mode: str
) -> None:
    python = sys.executable if generation == 3 else request.getfixturevalue("openai1_python")
    key = running.new_key(running.new_tenant(f"{generation} {mode}"))
    done = subprocess.run(
        [python, "-I", str(SCRIPT), f"{running.url}/v1", key, mode],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["version"].startswith(f"{generation}.")
    assert told["done"] == [*ALL, *(["videos"] if generation == 3 else [])]
