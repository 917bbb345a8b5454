"""An unmodified ``openai`` client makes pictures, speech and videos, against a whole plant whose
engine is the fake one: real files of real formats, in milliseconds."""

from __future__ import annotations

import io
import json
import warnings
import wave
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from shared.models_catalog import ModelEntry
from tests.integration.media_case import png
from tests.plant import Plant, plant

PNG = b"\x89PNG\r\n\x1a\n"
VOICES = [{"id": "anna", "name": "Anna", "language": "en"}]
BIG = "1280x720"
"""One of the sizes that the client's own types know."""


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, database_template: str, postgres_server: object
) -> Iterator[Plant]:
    """One for all: each test makes jobs of its own."""
    name = "openai_media_client"
    with postgres_server.connect() as connection:  # type: ignore[attr-defined]
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    url = postgres_server.url_of(name)  # type: ignore[attr-defined]
    models = [
        ModelEntry(id="fake", engine="fake"),
        # Only ever listed: the fake engine has no such setting.
        ModelEntry(id="speaker", engine="speech", settings={"voices": VOICES}),
    ]
    settings = {"POLL_SECONDS": "0.1"}
    folder = tmp_path_factory.mktemp("media client") / "plant"
    with plant(folder, url, models=models, settings=settings) as made:
        yield made.start()


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def client(running: Plant, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield running.client(timeout=60, max_retries=0, _strict_response_validation=request.param)


def without_a_key(url: str) -> bytes:
    reply = httpx2.get(url, timeout=30)
    assert reply.status_code == 200
    return reply.content


# --- text ----------------------------------------------------------------------------------------


def test_a_chat_completion(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "hello"}]
    )
    assert reply.choices[0].message.content
    assert client.completions.create(model="fake", prompt="x").choices[0].text
    # Left alone, the client asks for base64, which its own types do not allow.
    vectors = client.embeddings.create(model="fake", input=["a", "b"], encoding_format="float").data
    assert len(vectors) == 2
    assert len(vectors[0].embedding) > 0


def test_an_engines_refusal_is_a_bad_request_and_a_crash_is_not_repeated(
    running: Plant,
) -> None:
    client = running.client(timeout=60)  # that retries, as they do
    content = "[[error 400 context_length_exceeded]]"
    before = running.scalar("SELECT count(*) FROM jobs")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="fake", prompt=content)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.InternalServerError) as failed:
        client.completions.create(model="fake", prompt="[[error 500 engine_error]]")
    assert failed.value.code == "engine_error"
    assert running.scalar("SELECT count(*) FROM jobs") == before + 2


# --- pictures ------------------------------------------------------------------------------------


def test_pictures_by_url_and_in_base64(client: openai.OpenAI) -> None:
    made = client.images.generate(model="fake", prompt="a kettle", n=2, size="512x512")
    assert made.data is not None
    urls = [item.url or "" for item in made.data]
    assert len(set(urls)) == 2
    contents = [without_a_key(url) for url in urls]
    assert all(content.startswith(PNG) for content in contents)
    inside = client.images.generate(
        model="fake", prompt="a kettle", response_format="b64_json", extra_body={"seed": 5}
    )
    assert inside.data is not None
    assert (inside.data[0].b64_json or "").startswith("iVBOR")
    assert inside.data[0].url is None


def test_an_edit_and_a_variation(client: openai.OpenAI) -> None:
    picture = ("in.png", png(16, 16), "image/png")
    edited = client.images.edit(
        model="fake",
        image=picture,
        mask=("mask.png", png(16, 16), "image/png"),
        prompt="make it blue",
        n=1,
        extra_body={"strength": 0.5},
    )
    several = client.images.edit(model="fake", image=[picture], prompt="make it blue")
    varied = client.images.create_variation(model="fake", image=io.BytesIO(png(16, 16)), n=2)
    for made, count in ((edited, 1), (several, 1), (varied, 2)):
        assert made.data is not None
        assert [without_a_key(item.url or "")[:8] for item in made.data] == [PNG] * count
    files = client.files.list(purpose="vision").data
    assert {file.purpose for file in files} == {"vision"}
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.edit(model="fake", image=("x.svg", b"<svg/>"), prompt="x")
    assert (refused.value.code, refused.value.param) == ("unsupported_media", "image")


# --- speech --------------------------------------------------------------------------------------


def test_speech_whole_and_streamed_to_a_file(client: openai.OpenAI, tmp_path: Path) -> None:
    made = client.audio.speech.create(
        model="fake", voice="anna", input="Hello. " * 200, response_format="wav"
    )
    with wave.open(io.BytesIO(made.content)) as sound:
        assert sound.getnframes() > 1_000
    target = tmp_path / "speech.wav"
    with client.audio.speech.with_streaming_response.create(
        model="fake", voice="anna", input="Hello. " * 200, response_format="wav"
    ) as streamed:
        assert streamed.headers["content-type"] == "audio/wav"
        assert streamed.headers["x-pressrun-job"].startswith("job_")
        assert int(streamed.headers["content-length"]) == len(made.content)
        streamed.stream_to_file(target)
    assert target.read_bytes() == made.content


def test_voices(running: Plant) -> None:
    with running.http() as http:
        (voice,) = http.get("/v1/audio/voices").json()["data"]
    assert voice == VOICES[0] | {"object": "audio.voice", "model": "speaker"}


# --- videos --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_videos_from_create_to_delete(client: openai.OpenAI) -> None:
    made = client.videos.create_and_poll(model="fake", prompt="a kettle", seconds="4", size=BIG)
    assert (made.status, made.progress, made.size, made.error) == ("completed", 100, BIG, None)
    assert client.videos.retrieve(made.id) == made
    for variant in ("video", "thumbnail", "spritesheet"):
        assert client.videos.download_content(made.id, variant=variant).read()  # type: ignore[arg-type]
    framed = client.videos.create_and_poll(
        model="fake", prompt="x", seconds="4", size=BIG,
        input_reference=("first.png", png(16, 16), "image/png"),
    )  # fmt: skip
    assert framed.status == "completed"
    listed = [item.id for item in client.videos.list(limit=1)]
    assert listed[:2] == [framed.id, made.id]
    assert [item.id for item in client.videos.list(order="asc", limit=1)] == listed[::-1]
    failed = client.videos.create_and_poll(
        model="fake", prompt="[[error 500 engine_error]]", seconds="4", size=BIG
    )
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "engine_error"
    for video in (made, framed, failed):
        assert client.videos.delete(video.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(video.id)


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_of_every_kind(running: Plant) -> None:
    bodies = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
        "/v1/embeddings": {"input": "hello"},
        "/v1/images/generations": {"prompt": "a kettle", "n": 2},
        "/v1/audio/speech": {"input": "Hello.", "response_format": "wav"},
        "/v1/videos": {"prompt": "a kettle"},
    }
    rows = [
        {"custom_id": url, "method": "POST", "url": url, "body": body | {"model": "fake"}}
        for url, body in bodies.items()
    ]
    batch = running.wait_batch(running.submit_batch(rows, endpoint="/v1/*"))
    assert batch.status == "completed"
    assert batch.error_file_id is None
    results = running.results(batch)
    assert set(results) == set(bodies)
    picture = results["/v1/images/generations"]["response"]["body"]["data"][0]
    with running.http() as http:
        artifact = http.get(f"/v1/artifacts/{picture['artifact_id']}").json()
        assert (artifact["job_id"], artifact["line"]) == (batch.id, 3)
        stable = http.get(f"/v1/artifacts/{artifact['id']}/content", follow_redirects=True)
        made = http.get(f"/v1/jobs/{batch.id}/artifacts?role=image").json()["data"]
    assert stable.content.startswith(PNG)
    assert without_a_key(artifact["url"]) == stable.content
    assert picture["url"].endswith(f"/v1/artifacts/{artifact['id']}/content")
    assert len(made) == 2
    assert json.dumps(results).count("/v1/downloads/") == 0
