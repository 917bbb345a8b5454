"""Moderations: into classifications, and from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shared.specs.classifications import MAX_SCORES
from shared.specs.moderations import ModerationSpec
from shared.translation.thresholds import Thresholds, category_key

Object = dict[str, Any]

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit",
    "illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent", "sexual",
    "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
"""OpenAI's. Every result has all of them, whichever the classifier knows."""

HARMLESS = frozenset(
    {
        "acceptable", "benign", "clean", "harmless", "neutral", "no-hate", "non-toxic", "none",
        "normal", "not-flagged", "not-toxic", "ok", "other", "safe", "sfw",
    }
)  # fmt: skip
"""Labels that say that nothing is wrong, by ``category_key``: no categories of their own."""

ENGINE_PARAMS = {"top_k": "model"}
"""What an engine complains about, by what the caller called it: only a model that labels texts
takes ``top_k``."""

HINT = (
    "no model is configured to moderate: name a classifier in 'model', or have the operator set "
    "PRESSRUN_MODERATION_MODEL or list /v1/moderations among the endpoints of a classifier"
)

_STANDARD = {category_key(name): name for name in CATEGORIES}


def classification_body(spec: ModerationSpec, model: str) -> Object:
    """The classification that answers ``spec``: every label's score for every input."""
    return {"model": model, "input": spec.inputs, "top_k": MAX_SCORES}


def moderation(
    moderation_id: str, *, classified: Mapping[str, Any], thresholds: Thresholds
) -> Object:
    """The moderation that a classifier's answer is."""
    return {
        "id": moderation_id,
        "model": classified["model"],
        "results": [_result(item, thresholds) for item in classified["data"]],
    }


def _result(found: Mapping[str, Any], thresholds: Thresholds) -> Object:
    """``truncated`` says that the classifier has read only the beginning of the text."""
    known = dict(_scores(found["scores"], thresholds))
    scores = dict.fromkeys(CATEGORIES, 0.0) | known
    flags = {name: name in known and _flagged(name, known, thresholds) for name in scores}
    return {
        "flagged": any(flags.values()),
        "categories": flags,
        "category_scores": scores,
        "category_applied_input_types": {
            name: ["text"] if name in known else [] for name in scores
        },
        "truncated": found["truncated"],
    }


def _scores(
    listed: Iterable[Mapping[str, Any]], thresholds: Thresholds
) -> Iterable[tuple[str, float]]:
    """The categories that the classifier's labels are, best first."""
    for item in listed:
        key = category_key(item["label"])
        name = _STANDARD.get(key, item["label"])
        wanted = key in thresholds.exceptions or key not in HARMLESS
        if wanted and thresholds.of(name) is not None:
            yield name, item["score"]


def _flagged(name: str, scores: Mapping[str, float], thresholds: Thresholds) -> bool:
    least = thresholds.of(name)
    return least is not None and scores[name] >= least


def moderator(serving: Mapping[str, Iterable[str]], configured: str | None) -> str | None:
    """The model, or alias, that judges where none is named: the one that is ``configured``, else
    the first that lists ``/v1/moderations`` among what it serves. ``serving`` has each model's
    endpoints."""
    if configured is not None:
        return configured
    return next((name for name, listed in serving.items() if "/v1/moderations" in listed), None)
