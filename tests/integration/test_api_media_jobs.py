"""Videos, campaigns and artifacts over HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from api import media_objects, objects
from shared.errors import StorageUnavailable
from shared.ids import artifact_id
from tests.integration.api_case import COMPLETION
from tests.integration.media_case import (
    BRIEF,
    BUNDLE_FILES,
    COMPOSER,
    FILMER,
    PAINTER,
    WRITER,
    Answer,
    MediaCase,
    bundle_body,
    media_fixture,
    picture_answer,
    png,
    video_answer,
)

__all__ = ["media_fixture"]

VIDEO = {"model": FILMER, "prompt": "a kettle \0 boils", "seconds": "4", "size": "1280x720"}


def video(media: MediaCase, video_id: str) -> dict[str, Any]:
    reply = media.get(f"/v1/videos/{video_id}")
    assert reply.status_code == 200
    media_objects.Video.model_validate(reply.json)
    return dict(reply.json)


# --- videos --------------------------------------------------------------------------------------


def test_a_video_from_submit_to_download(media: MediaCase) -> None:
    created = media.post("/v1/videos", VIDEO)
    assert created.status_code == 200
    media_objects.Video.model_validate(created.json)
    video_id = created.json["id"]
    assert video_id.startswith("video_")
    assert media.bell.rung == ["video"]
    assert int(created.headers["openai-poll-after-ms"]) >= 1_000
    assert video(media, video_id) == created.json
    assert (created.json["status"], created.json["prompt"]) == ("queued", VIDEO["prompt"])
    assert media.get(f"/v1/videos/{video_id}/content").status_code == 404

    claim = media.claim()
    assert claim is not None
    with media.begin() as connection:
        connection.execute(text("UPDATE jobs SET progress = 0.427 WHERE id = :id"),
                           {"id": video_id})  # fmt: skip
    running = video(media, video_id)
    assert (running["status"], running["progress"]) == ("in_progress", 42)
    assert media.get(f"/v1/jobs/{video_id}").json["progress"] == 0.427
    media.finish(claim, video_answer())
    done = video(media, video_id)
    assert (done["status"], done["progress"], done["seconds"]) == ("completed", 100, "4")
    assert done["completed_at"] >= done["created_at"]
    assert "openai-poll-after-ms" not in media.get(f"/v1/videos/{video_id}").headers
    for variant, content in (("video", b"v" * 5_000), ("thumbnail", b"t"), ("spritesheet", b"s")):
        found = media.get(f"/v1/videos/{video_id}/content?variant={variant}")
        assert found.status_code == 302
        assert media.client.get(found.headers["Location"]).data == content
    assert media.get(f"/v1/videos/{video_id}/content?variant=captions").status_code == 404
    assert media.get(f"/v1/videos/{video_id}/content?variant=gif").status_code == 400
    job = media.get(f"/v1/jobs/{video_id}").json
    objects.Job.model_validate(job)
    assert (job["kind"], job["state"]) == ("video", "succeeded")


def test_a_form_with_a_first_frame_is_a_video_too(media: MediaCase) -> None:
    form = VIDEO | {"input_reference": (io.BytesIO(png(8, 8)), "first.png"), "fps": "8",
                    "guidance": "7.5"}  # fmt: skip
    reply = media.client.post("/v1/videos", data=form, headers=media.key)
    assert reply.status_code == 200, reply.text
    with media.begin() as connection:
        spec = connection.execute(text("SELECT spec FROM jobs")).scalar_one()
    assert spec["input_reference"]["file_id"].startswith("file-")
    assert (spec["fps"], spec["guidance"], spec["seconds"]) == (8, 7.5, "4")


def test_videos_are_listed_both_ways(media: MediaCase) -> None:
    ids = [media.post("/v1/videos", VIDEO).json["id"] for _ in range(4)]
    media.submit()
    for order, expected in (("desc", ids[::-1]), ("asc", ids)):
        seen: list[str] = []
        after = ""
        for _ in range(3):
            page = media.get(f"/v1/videos?limit=2&order={order}{after}").json
            media_objects.VideoList.model_validate(page)
            seen += [item["id"] for item in page["data"]]
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert seen == expected
    assert media.get("/v1/videos?order=up").status_code == 400
    assert [job["kind"] for job in media.get("/v1/jobs?kind=video").json["data"]] == ["video"] * 4


@pytest.mark.parametrize(("code", "param"), [("engine_crashed", None), ("bad_size", "size")])
def test_a_video_that_failed_says_why(media: MediaCase, code: str, param: str | None) -> None:
    media.post("/v1/videos", VIDEO)
    failed = video(media, media.finish_next(Answer(code=code, message="so it is", param=param)))
    assert (failed["status"], failed["completed_at"]) == ("failed", None)
    assert failed["error"] == {"code": code, "message": "so it is"}


def test_a_cancelled_video_has_failed(media: MediaCase) -> None:
    video_id = media.post("/v1/videos", VIDEO).json["id"]
    media.post(f"/v1/jobs/{video_id}/cancel")
    assert video(media, video_id)["error"]["code"] == "cancelled"


def test_a_deleted_video_leaves_nothing_to_see_or_to_store(media: MediaCase) -> None:
    video_id = media.post("/v1/videos", VIDEO).json["id"]
    refused = media.delete(f"/v1/videos/{video_id}")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
    media.finish_next(video_answer())
    (stored,) = {path.parent for path in media.settings.storage_dir.rglob("art_*")}
    reply = media.delete(f"/v1/videos/{video_id}")
    media_objects.DeletedVideo.model_validate(reply.json)
    assert not stored.exists()
    for path in ("", "/content"):
        assert media.get(f"/v1/videos/{video_id}{path}").status_code == 404
    for path in (f"/v1/jobs/{video_id}", f"/v1/jobs/{video_id}/artifacts"):
        assert media.get(path).status_code == 404
    assert (
        media.get(f"/v1/artifacts/{artifact_id(video_id + '-0', 'video.mp4')}").status_code == 404
    )
    assert media.get("/v1/videos").json["data"] == media.get("/v1/jobs").json["data"] == []
    assert media.delete(f"/v1/videos/{video_id}").status_code == 404
    with media.begin() as connection:
        kept = connection.execute(text("SELECT spec, result, cleaned_at FROM jobs")).one()
    assert tuple(kept) == ({}, None, None)


def test_a_store_that_is_away_does_not_keep_a_video_from_going(
    media: MediaCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(key: str) -> None:
        raise StorageUnavailable("away")

    video_id = media.post("/v1/videos", VIDEO).json["id"]
    media.finish_next(video_answer())
    monkeypatch.setattr(media.services.store, "delete", away)
    assert media.delete(f"/v1/videos/{video_id}").status_code == 200
    assert media.get(f"/v1/videos/{video_id}").status_code == 404


def test_a_composition_is_a_video(media: MediaCase) -> None:
    reply = media.post("/v1/videos/compositions", {"scenes": [{"seconds": 2, "title": "Hello"}]})
    assert reply.status_code == 200, reply.text
    assert (reply.json["prompt"], reply.json["model"]) == (None, COMPOSER)
    assert video(media, reply.json["id"])["seconds"] == "auto"
    body = {"model": COMPOSER, "scenes": [{"seconds": 2}]}
    job = media.post("/v1/jobs", {"endpoint": "/v1/videos/compositions", "body": body})
    assert job.json["kind"] == "video"
    assert len(media.get("/v1/videos").json["data"]) == 2


def test_a_composed_video_is_a_graph(media: MediaCase) -> None:
    body = {"model": COMPOSER, "prompt": "One sentence. And another."}
    reply = media.post("/v1/videos", body)
    assert reply.status_code == 200, reply.text
    video_id = reply.json["id"]
    job = media.get(f"/v1/jobs/{video_id}").json
    objects.Job.model_validate(job)
    steps = media.get(job["steps_url"]).json
    media_objects.StepList.model_validate(steps)
    assert steps["data"][-1]["endpoint"] == "/v1/videos/compositions"
    assert set(steps["data"][-1]["needs"]) <= {step["name"] for step in steps["data"]}
    assert "speech" in media.bell.rung


# --- campaigns -----------------------------------------------------------------------------------


def test_a_campaign_is_planned_followed_and_cancelled(media: MediaCase) -> None:
    reply = media.post("/v1/campaigns", BRIEF)
    assert reply.status_code == 202, reply.text
    media_objects.Campaign.model_validate(reply.json)
    campaign_id = reply.json["id"]
    assert reply.headers["Location"] == f"/v1/campaigns/{campaign_id}"
    shown = media.get(f"/v1/campaigns/{campaign_id}").json
    assert shown == reply.json
    assert (shown["product"], shown["languages"]) == (BRIEF["product"], ["en", "de"])
    assert shown["steps"]["total"] > 4
    assert shown["zip_url"] is None
    assert media.get(f"/v1/campaigns/{campaign_id}/content").status_code == 404

    names: list[str] = []
    after = 0
    while True:
        page = media.get(f"/v1/campaigns/{campaign_id}/steps?limit=7&after={after}").json
        media_objects.StepList.model_validate(page)
        names += [step["name"] for step in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert len(names) == len(set(names)) == shown["steps"]["total"]

    cancelled = media.post(f"/v1/campaigns/{campaign_id}/cancel")
    assert (cancelled.status_code, cancelled.json["status"]) == (200, "cancelled")
    assert media.post(f"/v1/campaigns/{campaign_id}/cancel").json == cancelled.json
    assert media.get(f"/v1/campaigns/{campaign_id}?wait=25").json["status"] == "cancelled"


def test_a_job_of_the_campaigns_endpoint_is_a_campaign(media: MediaCase) -> None:
    document = {"endpoint": "/v1/campaigns", "body": BRIEF, "metadata": {"a": "b"}}
    reply = media.post("/v1/jobs", document, {"Idempotency-Key": "one"})
    assert reply.status_code == 202, reply.text
    objects.Job.model_validate(reply.json)
    assert (reply.json["kind"], reply.json["progress"]) == ("campaign", 0.0)
    assert media.get(f"/v1/campaigns/{reply.json['id']}").json["metadata"] == {"a": "b"}
    again = media.post("/v1/jobs", document, {"Idempotency-Key": "one"})
    assert (again.status_code, again.json["id"]) == (200, reply.json["id"])
    assert len(media.get("/v1/campaigns").json["data"]) == 1


def end_by_hand(media: MediaCase, campaign_id: str) -> None:
    """As if its steps had run: the bundle is there."""
    with media.begin() as connection:
        tenant = connection.execute(
            text("SELECT tenant_id FROM jobs WHERE id = :id"), {"id": campaign_id}
        ).scalar_one()

    def ids(name: str) -> str:
        return artifact_id(f"{campaign_id}-0-bundle", name)

    for file in BUNDLE_FILES:
        key = f"t/{tenant}/j/{campaign_id}/a/9/e1/{ids(file.name)}"
        stored = media.services.store.put_bytes(key, file.content, media_type=file.media_type)
        with media.begin() as connection:
            connection.execute(
                text("""
                INSERT INTO artifacts (id, tenant_id, job_id, shard_id, step, role, name,
                                       storage_key, media_type, bytes, sha256)
                VALUES (:id, :tenant, :job, 9, 'bundle', :role, :name, :key, :type, :bytes, :sha)
                """),
                {"id": ids(file.name), "tenant": tenant, "job": campaign_id, "role": file.role,
                 "name": file.name, "key": key, "type": file.media_type, "bytes": stored.bytes,
                 "sha": stored.sha256},
            )  # fmt: skip
    with media.begin() as connection:
        connection.execute(
            text("""
            UPDATE jobs SET state = 'succeeded', result = CAST(:result AS json),
                   started_at = clock_timestamp(), ended_at = clock_timestamp() WHERE id = :id
            """),
            {"id": campaign_id, "result": json.dumps(bundle_body(ids))},
        )


def test_a_finished_campaign_has_its_bundle(media: MediaCase) -> None:
    campaign_id = media.post("/v1/campaigns", BRIEF).json["id"]
    end_by_hand(media, campaign_id)
    shown = media.get(f"/v1/campaigns/{campaign_id}").json
    media_objects.Campaign.model_validate(shown)
    assert (shown["status"], shown["progress"], shown["artifacts"]) == ("succeeded", 1.0, 2)
    for file, variant in zip(BUNDLE_FILES, ("zip", "manifest", "contact_sheet"), strict=True):
        signed = media.client.get(shown[f"{variant}_url"])
        assert (signed.status_code, signed.data) == (200, file.content)
        found = media.get(f"/v1/campaigns/{campaign_id}/content?variant={variant}")
        assert found.status_code == 302
        assert media.client.get(found.headers["Location"]).data == file.content
    sheet = media.client.get(shown["contact_sheet_url"])
    assert sheet.headers["Content-Disposition"].startswith("attachment")
    listed = media.get("/v1/campaigns").json
    media_objects.CampaignList.model_validate(listed)
    assert media.client.get(listed["data"][0]["zip_url"]).data == b"PK"


@pytest.mark.parametrize(
    ("changed", "code", "param"),
    [
        ({"model": "absent"}, "model_not_found", "model"),
        ({"image_model": WRITER}, "model_not_found", "image_model"),
        ({"languages": []}, "invalid_request", "languages"),
        ({"product": ""}, "invalid_request", "product"),
    ],
)
def test_a_brief_that_cannot_be_planned_names_the_field(
    media: MediaCase, changed: dict[str, Any], code: str, param: str
) -> None:
    reply = media.post("/v1/campaigns", BRIEF | changed)
    assert (reply.json["error"]["code"], reply.json["error"]["param"]) == (code, param)
    reply = media.post("/v1/jobs", {"endpoint": "/v1/campaigns", "body": BRIEF | changed})
    assert reply.json["error"]["param"] == f"body.{param}"
    assert media.get("/v1/campaigns").json["data"] == []


# --- artifacts -----------------------------------------------------------------------------------


def make_pictures(media: MediaCase, count: int = 3) -> str:
    body = {"model": PAINTER, "prompt": "x", "n": count}
    media.post("/v1/jobs", {"endpoint": "/v1/images/generations", "body": body})
    return media.finish_next(picture_answer(count))


def test_artifacts_are_listed_by_pages_and_filtered(media: MediaCase) -> None:
    job_id = make_pictures(media)
    seen: list[dict[str, Any]] = []
    after = ""
    while True:
        page = media.get(f"/v1/jobs/{job_id}/artifacts?limit=4{after}").json
        media_objects.ArtifactList.model_validate(page)
        seen += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert {item["name"] for item in seen} == {
        f"{n}.{end}" for n in range(3) for end in ("png", "thumbnail.webp")
    }
    images = media.get(f"/v1/jobs/{job_id}/artifacts?role=image").json["data"]
    assert {item["role"] for item in images} == {"image"}
    assert len(images) == 3
    assert len(media.get(f"/v1/jobs/{job_id}/artifacts?line=0").json["data"]) == 6
    assert media.get(f"/v1/jobs/{job_id}/artifacts?line=1").json["data"] == []
    thumbnails = {item["parent_id"] for item in seen if item["role"] == "thumbnail"}
    assert thumbnails == {item["id"] for item in images}


def test_an_artifact_tells_how_it_was_made_and_where_it_is(media: MediaCase) -> None:
    job_id = make_pictures(media, 1)
    shown = media.get(f"/v1/artifacts/{artifact_id(job_id + '-0', '0.png')}").json
    media_objects.Artifact.model_validate(shown)
    assert (shown["job_id"], shown["provenance"]) == (job_id, {"prompt": "a \0 prompt"})
    assert shown["bytes"] == len(png(4, 4))
    assert media.client.get(shown["url"]).data == png(4, 4)
    found = media.get(f"/v1/artifacts/{shown['id']}/content")
    assert found.status_code == 302
    part = media.client.get(found.headers["Location"], headers={"Range": "bytes=-4"})
    assert (part.status_code, part.data) == (206, png(4, 4)[-4:])
    assert job_id in part.headers["Content-Disposition"]


@pytest.mark.parametrize("query", ["limit=0", "after=x", "line=-1", "line=x", "role=%00"])
def test_a_list_of_artifacts_refuses_what_it_cannot_read(media: MediaCase, query: str) -> None:
    job_id = make_pictures(media, 1)
    reply = media.get(f"/v1/jobs/{job_id}/artifacts?{query}")
    assert reply.status_code == 400
    assert reply.json["error"]["param"] == query.partition("=")[0]


def test_jobs_of_text_have_neither_artifacts_nor_steps(media: MediaCase) -> None:
    media.post("/v1/jobs", COMPLETION | {"body": {"model": WRITER, "prompt": "x"}})
    (job,) = media.get("/v1/jobs").json["data"]
    assert media.get(f"/v1/jobs/{job['id']}/artifacts").json["data"] == []
    assert media.get(f"/v1/jobs/{job['id']}/steps").json["data"] == []
    for path in ("artifacts", "steps"):
        assert media.get(f"/v1/jobs/job_absent/{path}").status_code == 404


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["/v1/*", "/v1/images/edits", "/v1/audio/speech",
                                      "/v1/videos", "/v1/campaigns"])  # fmt: skip
def test_batches_of_every_endpoint_are_taken(media: MediaCase, endpoint: str) -> None:
    batch_id = media.submit_batch(endpoint=endpoint)
    assert media.get(f"/v1/batches/{batch_id}").json["endpoint"] == endpoint
    job = media.get(f"/v1/jobs/{batch_id}").json
    assert job["artifacts_url"] == f"/v1/jobs/{batch_id}/artifacts"
    listed = media.get(f"/v1/jobs?endpoint={endpoint}").json["data"]
    assert [item["id"] for item in listed] == [batch_id]


def test_a_look_at_a_video_costs_three_statements_at_most(media: MediaCase) -> None:
    video_id = media.post("/v1/videos", VIDEO).json["id"]
    media.finish_next(video_answer())
    looks: list[tuple[str, Callable[[], Any]]] = [
        ("video", lambda: media.get(f"/v1/videos/{video_id}")),
        ("list", lambda: media.get("/v1/videos")),
        ("job", lambda: media.get(f"/v1/jobs/{video_id}")),
    ]
    for name, look in looks:
        with media.count_statements() as statements:
            assert look().status_code == 200
        assert len(statements) <= 3, name
