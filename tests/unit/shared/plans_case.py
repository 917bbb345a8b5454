"""Plans under test: a catalog, and made-up results for every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.db.models import Model
from shared.errors import ModelNotFound
from shared.plans import BUNDLE, Step, complete, plan
from shared.specs import InferenceSpec, parse_body

CAMPAIGNS = "/v1/campaigns"
VIDEOS = "/v1/videos"
CHAT = "/v1/chat/completions"
IMAGES = "/v1/images/generations"
SPEECH = "/v1/audio/speech"
COMPOSITIONS = "/v1/videos/compositions"

SERVED = {
    "writer": (CHAT, "text"),
    "painter": (IMAGES, "image"),
    "voice": (SPEECH, "speech"),
    "composer": (COMPOSITIONS, "video"),
    "other-composer": (COMPOSITIONS, "video"),
}


def offers(endpoint: str, model_id: str | None, param: str) -> Model:
    for name, (served, pool) in SERVED.items():
        if served == endpoint and model_id in (None, name):
            return Model(name, pool, pool, "", [served], {}, "pressrun", 0)
    raise ModelNotFound(f"no {model_id} for {endpoint}", param=param)


def campaign(row: str = "campaign_1-0", **brief: Any) -> list[Step]:
    return planned(CAMPAIGNS, {"model": "writer", "product": "Aurora lamp"} | brief, row)


def video(row: str = "video_1-0", **body: Any) -> list[Step]:
    return planned(VIDEOS, {"model": "composer", "prompt": "A lamp."} | body, row)


def planned(endpoint: str, body: Mapping[str, Any], row: str) -> list[Step]:
    return plan(endpoint, parse_body(endpoint, body), offers, row=row)


def sample_result(step: Step, text: str = "Light for the night.") -> dict[str, Any]:
    """What an engine of the step's endpoint answers, with ids that tell which step it was."""
    artifact_id = "art_" + "".join(c for c in step.name.lower() if c.isascii() and c.isalnum())
    match step.endpoint:
        case "/v1/chat/completions":
            return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
        case "/v1/images/generations":
            return {"data": [{"artifact_id": artifact_id, "url": "/x", "seed": 1}]}
        case "/v1/audio/speech":
            spoken = [{"text": text, "start": 0.0, "end": 1.5, "words": 4}]
            return {"artifact_id": artifact_id, "seconds": 1.5, "sentences": spoken}
        case _:
            return {"artifact_id": artifact_id}


def completed(
    steps: Sequence[Step], texts: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Every body as its engine gets it, by step; each is checked against its endpoint's spec, and
    sees the results of the steps that it needs and of no others."""
    results: dict[str, Any] = {}
    bodies: dict[str, dict[str, Any]] = {}
    for step in steps:
        bodies[step.name] = complete(step.body, {name: results[name] for name in step.needs})
        if step.endpoint != BUNDLE:
            spec: InferenceSpec = parse_body(step.endpoint, bodies[step.name])
            assert spec.model == step.model
            results[step.name] = sample_result(
                step, (texts or {}).get(step.name, "Light for the night.")
            )
    return bodies
