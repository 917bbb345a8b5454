"""Plans of jobs that make several kinds of output: which they are, and their steps."""

from __future__ import annotations

from shared.plans.base import BUNDLE, Offers, PlanError, Step
from shared.plans.campaign import plan_campaign
from shared.plans.references import complete
from shared.plans.video import plan_video
from shared.specs import CampaignSpec, InferenceSpec, VideoSpec

__all__ = ["BUNDLE", "Offers", "PlanError", "Step", "complete", "is_planned", "plan"]

CAMPAIGNS = "/v1/campaigns"
VIDEOS = "/v1/videos"
COMPOSER = "composer"
"""The engine whose videos are planned; other engines make theirs in one go."""


def is_planned(endpoint: str, engine: str) -> bool:
    """Whether a call is a graph of steps, given the engine of the model that it names. Every other
    call is one row in one engine."""
    return endpoint == CAMPAIGNS or (endpoint == VIDEOS and engine == COMPOSER)


def plan(endpoint: str, spec: InferenceSpec, offers: Offers, *, row: str) -> list[Step]:
    """The steps of one call, in an order in which each needs only earlier ones; the last step's
    result is the call's.

    ``row`` is the row's id and only ever a seed. Raises ModelNotFound, InvalidRequest or a
    subclass with ``param`` set, for what can't be planned.
    """
    if endpoint == CAMPAIGNS and isinstance(spec, CampaignSpec):
        return plan_campaign(spec, offers, row=row)
    if endpoint == VIDEOS and isinstance(spec, VideoSpec):
        return plan_video(spec, offers, row=row)
    raise ValueError(f"{endpoint} is not planned")
