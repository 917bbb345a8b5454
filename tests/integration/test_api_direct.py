"""Direct calls: an ordinary job, waited for."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api import media_objects, objects
from tests.integration.media_case import (
    PAINTER,
    READER,
    SOUND,
    WRITER,
    Answer,
    MediaCase,
    media_fixture,
    picture_answer,
    png,
    speech_answer,
)

__all__ = ["media_fixture"]

CHAT = {"model": WRITER, "messages": [{"role": "user", "content": "hello"}]}
PICTURE = {"model": PAINTER, "prompt": "a kettle"}
SAID = Answer(lambda _ids: {"id": "chatcmpl-1", "choices": []})


def spec_of(media: MediaCase, job_id: str) -> dict[str, Any]:
    with media.begin() as connection:
        spec = connection.execute(
            text("SELECT CAST(spec AS text) FROM jobs WHERE id = :id"), {"id": job_id}
        ).scalar_one()
    return dict(json.loads(spec))


def jobs(media: MediaCase) -> list[dict[str, Any]]:
    return list(media.get("/v1/jobs?limit=100").json["data"])


# --- text ----------------------------------------------------------------------------------------


def test_a_call_answers_the_result_of_its_job(media: MediaCase) -> None:
    with media.worker(SAID):
        reply = media.post("/v1/chat/completions", CHAT)
    assert reply.status_code == 200, reply.text
    assert reply.json == {"id": "chatcmpl-1", "choices": []}
    job = media.get(f"/v1/jobs/{reply.headers['x-pressrun-job']}").json
    assert (job["kind"], job["state"], job["endpoint"]) == (
        "generate", "succeeded", "/v1/chat/completions",
    )  # fmt: skip
    assert media.bell.rung == ["text"]
    assert "artifacts_url" not in job


@pytest.mark.parametrize(
    ("code", "param", "status"),
    [
        ("context_length_exceeded", "prompt", 400),
        ("an_engines_own", "temperature", 400),
        ("not_found", "image", 400),
        ("engine_crashed", None, 500),
        ("out_of_memory", None, 500),
        ("model_load_failed", None, 503),
        ("storage_unavailable", None, 503),
        ("some_new_code", None, 500),
    ],
)
def test_a_failed_job_answers_with_its_own_error(
    media: MediaCase, code: str, param: str | None, status: int
) -> None:
    with media.worker(Answer(code=code, message="it is so", param=param)):
        reply = media.post("/v1/chat/completions", CHAT)
    assert reply.status_code == status
    objects.Problem.model_validate(reply.json)
    error = reply.json["error"]
    assert (error["code"], error["message"], error["param"]) == (code, "it is so", param)
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-pressrun-job"] == jobs(media)[0]["id"]


def test_a_call_that_takes_too_long_is_told_where_its_job_is(
    database_url: str, tmp_path: Path
) -> None:
    media = MediaCase(database_url, tmp_path, direct_seconds=0.05)
    try:
        reply = media.post("/v1/chat/completions", CHAT)
        (job,) = jobs(media)
        assert (reply.status_code, reply.json["error"]["code"]) == (504, "still_running")
        assert job["id"] in reply.json["error"]["message"]
        assert reply.headers["x-should-retry"] == "false"
        media.finish_next(SAID)
        done = media.get(f"/v1/jobs/{job['id']}").json
        assert (done["state"], done["result"]["id"]) == ("succeeded", "chatcmpl-1")
    finally:
        media.close()


def test_a_job_that_is_cancelled_meanwhile_answers_409(media: MediaCase) -> None:
    replies: list[Any] = []
    calling = threading.Thread(
        target=lambda: replies.append(
            media.app.test_client().post("/v1/chat/completions", json=CHAT, headers=media.key)
        )
    )
    calling.start()
    media.until_waiting(1)
    while not (found := jobs(media)):
        pass
    media.post(f"/v1/jobs/{found[0]['id']}/cancel")
    calling.join(20)
    assert (replies[0].status_code, replies[0].json["error"]["code"]) == (409, "conflict")
    assert replies[0].headers["x-should-retry"] == "false"


def test_when_too_many_wait_nothing_is_accepted(media: MediaCase) -> None:
    media.services.waiter._max_waiting = 0
    reply = media.post("/v1/chat/completions", CHAT)
    assert (reply.status_code, reply.json["error"]["code"]) == (429, "too_many_requests")
    assert int(reply.headers["Retry-After"]) > 0
    assert jobs(media) == []


def test_the_same_key_and_body_make_one_job(media: MediaCase) -> None:
    key = {"Idempotency-Key": "one"}
    with media.worker(SAID) as seen:
        first = media.post("/v1/chat/completions", CHAT, key)
        again = media.post("/v1/chat/completions", CHAT, key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json == again.json
    assert first.headers["x-pressrun-job"] == again.headers["x-pressrun-job"]
    assert len(seen) == len(jobs(media)) == 1
    other = media.post("/v1/chat/completions", CHAT | {"seed": 1}, key)
    assert (other.status_code, other.json["error"]["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/v1/chat/completions", CHAT | {"stream": 1}, "invalid_request", "stream"),
        ("/v1/chat/completions", CHAT | {"tools": []}, "unsupported_parameter", "tools"),
        ("/v1/chat/completions", CHAT | {"model": PAINTER}, "model_not_found", "model"),
        ("/v1/completions", {"model": WRITER}, "invalid_request", "prompt"),
        ("/v1/embeddings", {"model": WRITER, "input": "x"}, "model_not_found", "model"),
        ("/v1/images/generations", PICTURE | {"size": "huge"}, "invalid_request", "size"),
        ("/v1/images/edits", PICTURE, "invalid_request", "image"),
        ("/v1/images/edits", PICTURE | {"image": "https://example.com/x.png"},
         "invalid_request", "image"),
        ("/v1/audio/speech", {"model": READER}, "invalid_request", "input"),
        ("/v1/videos", {"model": PAINTER, "prompt": "x"}, "model_not_found", "model"),
        ("/v1/campaigns", {"product": "x", "colour": 1}, "unsupported_parameter", "colour"),
    ],
)  # fmt: skip
def test_a_bad_call_names_the_field_and_makes_no_job(
    media: MediaCase, path: str, body: dict[str, Any], code: str, param: str
) -> None:
    reply = media.post(path, body)
    error = reply.json["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert reply.status_code == (404 if code == "model_not_found" else 400)
    assert jobs(media) == []
    assert media.bell.rung == []


# --- pictures ------------------------------------------------------------------------------------


def test_pictures_have_urls_that_open_without_a_key(media: MediaCase) -> None:
    with media.worker(picture_answer(2)):
        reply = media.post("/v1/images/generations", PICTURE | {"n": 2})
    media_objects.Images.model_validate(reply.json)
    for number, item in enumerate(reply.json["data"]):
        assert item["url"].startswith("http://localhost/v1/downloads/")
        found = media.client.get(item["url"])
        assert (found.status_code, found.data) == (200, png(4 + number, 4))
        assert found.content_type == "image/png"
        part = media.client.get(item["url"], headers={"Range": "bytes=1-3"})
        assert (part.status_code, part.data) == (206, b"PNG")


def test_a_job_shows_fresh_urls_at_every_look_and_keeps_its_etag(media: MediaCase) -> None:
    with media.worker(picture_answer()):
        job_id = media.post("/v1/images/generations", PICTURE).headers["x-pressrun-job"]
    reply = media.get(f"/v1/jobs/{job_id}")
    objects.Job.model_validate(reply.json)
    (item,) = reply.json["result"]["data"]
    assert media.client.get(item["url"]).data == png(4, 4)
    assert reply.json["artifacts_url"] == f"/v1/jobs/{job_id}/artifacts"
    stored = media.settings.download_url_seconds
    same = media.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": reply.headers["ETag"]})
    assert (same.status_code, stored) == (304, 900)


def test_without_a_model_the_first_that_serves_is_taken(media: MediaCase) -> None:
    with media.worker(picture_answer()) as seen:
        assert media.post("/v1/images/generations", {"prompt": "x"}).status_code == 200
    assert spec_of(media, seen[0].job_id)["model"] == PAINTER


def upload(media: MediaCase, path: str, **form: Any) -> Any:
    multipart = "multipart/form-data"
    return media.client.post(path, data=form, headers=media.key, content_type=multipart)


def as_file(content: bytes, name: str = "in.png") -> tuple[io.BytesIO, str]:
    return io.BytesIO(content), name


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_a_form_becomes_a_spec_with_file_ids(media: MediaCase, field: str) -> None:
    with media.worker(picture_answer()) as seen:
        reply = media.client.post(
            "/v1/images/edits",
            data={
                field: as_file(png(8, 8)),
                "mask": as_file(png(8, 8), "mask.png"),
                "prompt": "12",
                "n": "1",
                "seed": "7",
                "strength": "0.5",
                "model": PAINTER,
            },
            headers=media.key,
        )
    assert reply.status_code == 200, reply.text
    spec = spec_of(media, seen[0].job_id)
    assert (spec["prompt"], spec["n"], spec["seed"], spec["strength"]) == ("12", 1, 7, 0.5)
    image = spec["image"][0] if field == "image[]" else spec["image"]
    files = {item["id"]: item for item in media.get("/v1/files?purpose=vision").json["data"]}
    assert set(files) == {image["file_id"], spec["mask"]["file_id"]}
    file = files[image["file_id"]]
    assert (file["filename"], file["bytes"]) == ("in.png", len(png(8, 8)))
    assert file["expires_at"] == file["created_at"] + 30 * 86_400
    assert list(media.settings.scratch_dir.iterdir()) == []


def test_a_variation_takes_a_form_and_a_json_body(media: MediaCase) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    with media.worker(picture_answer(), picture_answer()) as seen:
        form = {"image": as_file(png(8, 8))}
        assert upload(media, "/v1/images/variations", **form).status_code == 200
        big = _data_url(png(100, 100, data=b"\1" * 20_000))
        assert media.post("/v1/images/variations", {"image": big}).status_code == 200
    for claim in seen:
        assert spec_of(media, claim.job_id)["image"]["file_id"].startswith("file-")
    assert media.post("/v1/images/variations", {"image": url}).status_code == 400


def _data_url(content: bytes, media_type: str = "image/png") -> str:
    import base64

    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def test_a_short_data_url_stays_in_the_spec(media: MediaCase) -> None:
    url = _data_url(png(8, 8))
    with media.worker(picture_answer()) as seen:
        assert media.post("/v1/images/variations", {"image": {"image_url": url}}).status_code == 200
    assert spec_of(media, seen[0].job_id)["image"] == {"image_url": url}
    assert media.get("/v1/files").json["data"] == []


def test_a_repeated_form_makes_one_job(media: MediaCase) -> None:
    headers = media.key | {"Idempotency-Key": "form"}
    replies = []
    with media.worker(picture_answer()):
        for _ in range(2):
            form = {"image": as_file(png(8, 8))}
            replies.append(media.client.post("/v1/images/variations", data=form, headers=headers))
    assert [reply.status_code for reply in replies] == [200, 200]
    assert len({reply.headers["x-pressrun-job"] for reply in replies}) == 1
    assert len(media.get("/v1/files").json["data"]) == 1
    other = {"image": as_file(png(9, 8))}
    reply = media.client.post("/v1/images/variations", data=other, headers=headers)
    assert reply.json["error"]["code"] == "idempotency_mismatch"


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"image[a]": "x", "image": "y"}, "image"),
        ({"a b": "x"}, None),
        ({"size": as_file(png(8, 8))}, "size"),
        ({"x": as_file(png(8, 8))}, "x"),
        ({"image": as_file(png(8, 8)), "n": "many"}, "n"),
        ({"image": as_file(png(8, 8)), "n": "99"}, "n"),
        ({"image": "https://example.com/x.png"}, "image"),
    ],
)
def test_a_bad_form_is_refused_by_name_and_nothing_is_kept(
    media: MediaCase, form: dict[str, Any], param: str | None
) -> None:
    reply = upload(media, "/v1/images/variations", **form)
    assert reply.status_code == 400, reply.text
    assert reply.json["error"]["param"] == param
    assert media.get("/v1/files").json["data"] == []
    assert jobs(media) == []
    assert list(media.settings.scratch_dir.iterdir()) == []


# --- speech --------------------------------------------------------------------------------------


def test_speech_answers_the_sound_itself(media: MediaCase) -> None:
    with media.worker(speech_answer()):
        reply = media.post("/v1/audio/speech", {"model": READER, "input": "Hello.", "voice": "x"})
    assert (reply.status_code, reply.content_type) == (200, "audio/wav")
    assert reply.data == SOUND
    assert reply.headers["Content-Length"] == str(len(SOUND))
    job = media.get(f"/v1/jobs/{reply.headers['x-pressrun-job']}").json
    assert job["result"]["artifact_id"] == reply.headers["x-pressrun-artifact"]
    assert media.client.get(job["result"]["url"]).data == SOUND


def test_voices_are_those_of_the_models_that_speak(media: MediaCase) -> None:
    listed = media.get("/v1/audio/voices").json
    media_objects.VoiceList.model_validate(listed)
    assert [(item["id"], item["language"], item["model"]) for item in listed["data"]] == [
        ("anna", "en", READER), ("ben", "de", READER),
    ]  # fmt: skip
    assert media.get(f"/v1/audio/voices?model={READER}").json == listed
    assert media.get(f"/v1/audio/voices?model={WRITER}").status_code == 404
    assert media.get("/v1/audio/voices?model=%00").status_code == 404


def test_a_tenant_sees_no_other_tenants_direct_calls(media: MediaCase) -> None:
    with media.worker(speech_answer()):
        reply = media.post("/v1/audio/speech", {"model": READER, "input": "Hello."})
    stranger = media.new_tenant()
    for path in (
        f"/v1/jobs/{reply.headers['x-pressrun-job']}",
        f"/v1/artifacts/{reply.headers['x-pressrun-artifact']}",
    ):
        assert media.client.get(path, headers=stranger).status_code == 404
