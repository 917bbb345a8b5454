"""One of everything that a tenant can have, by the names that addresses give to ids."""

from __future__ import annotations

import io
from typing import Any

from sqlalchemy import text

from shared.ids import artifact_id, new_notice_id
from shared.lifecycle.webhooks import announce_ends
from tests.integration.media_case import BRIEF, FILMER, PAINTER, WRITER, MediaCase, picture_answer
from tests.integration.model_job_api_case import tuned
from tests.integration.tuning_case import TuningPlant

HOOK = {"name": "n", "url": "https://example.com/", "event_types": ["job.succeeded"]}
CLIENT_ID = "crm:42"
JUDGE = "judge"
_A_JUDGE = text("""
INSERT INTO models (id, pool, engine, source, endpoints)
VALUES ('judge', 'text', 'fake', 'judge', '{/v1/classifications}') ON CONFLICT DO NOTHING
""")
_A_NOTICE = text("""
INSERT INTO limit_notices (id, tenant_id, limit_name, period_start, percent, allowed, consumed)
SELECT :id, tenant_id, 'daily_tokens', '2026-03-01', 80, 10, 9 FROM models WHERE id = :model
""")
Belongings = dict[str, list[str]]


def for_two_tenants(media: MediaCase) -> tuple[Belongings, dict[str, str], Belongings]:
    """What the tenant of ``media`` has; the key of another one, and what that has."""
    first, second = media.key, media.new_tenant()
    keys = {"theirs": first, "mine": second}
    plant = TuningPlant(media.settings.database_url)
    made: dict[str, Belongings] = {}
    for whose, media.key in keys.items():  # before there is more that a worker could take
        made[whose] = _what_workers_make(media, plant)
    plant.close()
    for whose, media.key in keys.items():
        made[whose] |= _what_calls_make(media, made[whose], f"{whose}@now")
    media.key = first
    return made["theirs"], second, made["mine"]


def _what_workers_make(media: MediaCase, plant: TuningPlant) -> Belongings:
    """A model and a picture, and the webhook that told of it."""
    tuning_job, adapter = tuned(media, plant)
    endpoint_id = _made(media, "/v1/webhook_endpoints", HOOK)
    picture = _picture_job(media)
    return {
        "artifact_id": [artifact_id(f"{picture}-0", "0.png")],
        "webhook_endpoint_id": [endpoint_id],
        "delivery_id": [media.get("/v1/webhook_deliveries").json["data"][0]["id"]],
        "fine_tuning_job_id": [tuning_job],
        "model_id": [adapter],
        "job_id": [picture, tuning_job],
    }


def _what_calls_make(media: MediaCase, made: Belongings, alias_name: str) -> Belongings:
    alias = {"name": alias_name, "model": made["model_id"][0]}
    return {
        "deletion_id": [_deletion(media)],
        **_jobs(media, made["job_id"]),
        **_files(media),
        "alias_name": [_made(media, "/v1/model_aliases", alias)],
        **_what_comes_again(media),
        "notice_id": [_notice(media, made["model_id"][0])],
    }


def _notice(media: MediaCase, model_id: str) -> str:
    """Of a limit of the tenant whose model that is."""
    notice_id = new_notice_id()
    with media.begin() as connection:
        connection.execute(_A_NOTICE, {"id": notice_id, "model": model_id})
    return notice_id


def _what_comes_again(media: MediaCase) -> Belongings:
    """A schedule; and a monitor with a text in a window."""
    feed = {"url": "https://example.com/feed"}
    copied = {"name": "n", "template": "x", "source": feed, "every": "day", "model": WRITER}
    watched = {
        "name": "n",
        "model": JUDGE,
        "label": "negative",
        "limit": 0.5,
        "window": {"minutes": 5},
    }
    with media.begin() as connection:
        connection.execute(_A_JUDGE)
    monitor_id = _made(media, "/v1/monitors", watched)
    posted = media.post(f"/v1/monitors/{monitor_id}/texts", {"texts": ["x"]})
    assert posted.status_code == 202, posted.json
    return {
        "schedule_id": [_made(media, "/v1/schedules", copied)],
        "monitor_id": [monitor_id],
        "window_id": [str(posted.json["window_id"])],
    }


def _deletion(media: MediaCase) -> str:
    """The record of a file that was deleted."""
    file_id = media.upload().json["id"]
    return str(media.delete(f"/v1/files/{file_id}").headers["Pressrun-Deletion"])


def _made(media: MediaCase, path: str, body: dict[str, Any]) -> str:
    reply = media.post(path, body)
    assert reply.status_code < 300, (path, reply.json)
    return str(reply.json["id"])


def _picture_job(media: MediaCase) -> str:
    body = {"model": PAINTER, "prompt": "x"}
    media.post("/v1/jobs", {"endpoint": "/v1/images/generations", "body": body})
    job_id = media.finish_next(picture_answer())
    with media.begin() as connection:
        announce_ends(connection)
    return job_id


def _jobs(media: MediaCase, ended: list[str]) -> Belongings:
    words = {"endpoint": "/v1/completions", "body": {"model": WRITER, "prompt": "x"}}
    named = media.client.put(f"/v1/jobs/{CLIENT_ID}", json=words, headers=media.key)
    assert named.status_code == 202, named.json
    examples = media.upload(purpose="evals").json["id"]
    measured = {"models": [WRITER], "file": examples, "metric": "loss"}
    batch_id = media.submit_batch()
    video_id = _made(media, "/v1/videos", {"model": FILMER, "prompt": "x"})
    campaign_id = _made(media, "/v1/campaigns", BRIEF)
    evaluation_id = _made(media, "/v1/evaluations", measured)
    asked = {"model": WRITER, "input": "x", "background": True}
    response_id = _made(media, "/v1/responses", asked)
    table = {"filename": "data.csv", "purpose": "user_data"}
    copied = {
        "template": "Praise {{ name }}",
        "data_file_id": media.upload(b"name\nchair\n", **table).json["id"],
        "model": WRITER,
    }
    production_id = _made(media, "/v1/productions", copied)
    form = {"suffix": "mine", "file": (io.BytesIO(b"PK"), "model.zip")}
    imported = media.client.post("/v1/models/import", data=form, headers=media.key).json["id"]
    kinds = [batch_id, video_id, campaign_id, evaluation_id, imported, response_id]
    kinds.append(production_id)
    return {
        "job_id": [*ended, CLIENT_ID, *kinds],
        "client_id": [CLIENT_ID],
        "batch_id": [batch_id],
        "video_id": [video_id],
        "campaign_id": [campaign_id],
        "evaluation_id": [evaluation_id],
        "import_id": [imported],
        "response_id": [response_id],
        "production_id": [production_id],
    }


def _files(media: MediaCase) -> Belongings:
    asked = {"filename": "r.jsonl", "purpose": "batch", "bytes": 3, "mime_type": "text/plain"}
    upload_id = _made(media, "/v1/uploads", asked)
    form = {"data": (io.BytesIO(b"{}\n"), "data")}
    path = f"/v1/uploads/{upload_id}/parts"
    part = media.client.post(path, data=form, headers=media.key)
    assert part.status_code == 200, part.json
    return {
        "file_id": [media.upload().json["id"]],
        "upload_id": [upload_id],
        "part_id": [part.json["id"]],
    }
