"""The shapes of webhook endpoints and deliveries. OpenAI's where it has any; what is ours beside
them is said so."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.objects import Page, Shape, UnixSeconds


class Circuit(Shape):
    """Whether an endpoint answers. Ours."""

    state: Literal["closed", "open", "half_open"]
    failures: Annotated[int, Field(description="In a row, of any of its deliveries")]
    open_until: UnixSeconds | None


class WebhookEndpoint(Shape):
    """A URL that is told what ends. ``enabled``, ``disabled_reason`` and ``circuit`` are ours."""

    id: str
    object: Literal["webhook_endpoint"]
    created_at: UnixSeconds
    updated_at: UnixSeconds
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    enabled: bool
    disabled_reason: Annotated[
        Literal["by_tenant", "gone"] | None, Field(description="`gone`: it answered 410")
    ]
    circuit: Circuit


class WebhookEndpointWithSecret(WebhookEndpoint):
    """With the secret itself, which is shown this once."""

    signing_secret: str


class WebhookEndpointList(Page):
    """A page of webhook endpoints."""

    data: list[WebhookEndpoint]


class DeletedWebhookEndpoint(Shape):
    """A webhook endpoint that is gone."""

    id: str
    object: Literal["webhook_endpoint.deleted"]
    deleted: Literal[True]


class WebhookEndpointTest(Shape):
    """What a receiver answered to a sample."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Annotated[Literal[True], Field(description="The sample was sent; not: taken well")]


class WebhookEventTypes(Shape):
    """What webhooks can tell here."""

    object: Literal["list"]
    data: list[str]


class SigningSecret(Shape):
    """What the webhooks of single jobs are signed with. Ours."""

    object: Literal["webhook_signing_secret"]
    signing_secret_hint: str
    created_at: UnixSeconds
    updated_at: UnixSeconds


class SigningSecretShown(SigningSecret):
    """With the secret itself, which is shown this once."""

    signing_secret: str


class DeliveryAttempt(Shape):
    """One try at a delivery."""

    at: UnixSeconds
    milliseconds: int
    status_code: Annotated[int | None, Field(description="The receiver's answer, if there was one")]
    error_code: str | None


class WebhookDelivery(Shape):
    """One event on its way to one receiver. Ours."""

    id: str
    object: Literal["webhook_delivery"]
    webhook_endpoint_id: Annotated[str | None, Field(description="null: the webhook of one job")]
    url: str
    event_id: Annotated[str, Field(description="`webhook-id`, the same on every attempt")]
    event_type: str
    data_id: Annotated[str, Field(description="Of the job that it tells of")]
    test: bool
    status: Literal["pending", "delivered", "failed", "cancelled"]
    attempts: Annotated[list[DeliveryAttempt], Field(description="Oldest first, the latest 32")]
    next_attempt_at: UnixSeconds | None
    sending: bool
    status_code: int | None
    error_code: str | None
    created_at: UnixSeconds
    ended_at: UnixSeconds | None


class WebhookDeliveryList(Page):
    """A page of deliveries."""

    data: list[WebhookDelivery]


class Replayed(Shape):
    """How many deliveries are sent again."""

    object: Literal["webhook_endpoint.replay"]
    webhook_endpoint_id: str
    replayed: int
    has_more: Annotated[bool, Field(description="There are more than one call replays: call again")]
