"""The bodies of calls about webhooks, and the ``webhook`` member of calls that make jobs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api import parsing
from api.services import Services
from shared.db.webhooks import get_secret
from shared.egress import AllowedHosts, parse_allowed, parse_target
from shared.errors import InvalidRequest, SigningSecretMissing
from shared.lifecycle import JobWebhook
from shared.specs import CampaignSpec
from shared.specs.fine_tuning import FineTuningSpec
from shared.webhook_events import event_types

MEMBER = "webhook"

Url = Annotated[str, Field(min_length=1, max_length=2_048, description="https, of a public host")]
EventTypes = Annotated[
    list[Annotated[str, Field(max_length=64)]],
    Field(min_length=1, max_length=64, description="As `GET /v1/webhook_event_types` lists them"),
]
EndpointName = Annotated[str, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    # As api.requests.RequestBody, which has bodies that have a webhook.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class JobWebhookBody(_Body):
    """Whom the end of this job is told to, beside the tenant's webhook endpoints."""

    url: Url
    events: EventTypes | None = None
    """Only these; left out: the job's end, whatever it is."""


def _spelled_out(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


WebhookMember = (
    Annotated[
        JobWebhookBody,
        BeforeValidator(_spelled_out, json_schema_input_type=str | JobWebhookBody),
        Field(description="A URL, or an object: told when the job has ended, signed with the "
              "tenant's signing secret"),
    ]
    | None
)  # fmt: skip


class WebhookHolder(_Body):
    """The member alone, of a body whose other members somebody else reads."""

    webhook: WebhookMember = None


class CampaignRequest(CampaignSpec):
    """A brief, and whom to tell."""

    webhook: WebhookMember = None


class FineTuningRequest(FineTuningSpec):
    """What to train, and whom to tell."""

    webhook: WebhookMember = None


class EndpointRequest(_Body):
    """A new webhook endpoint."""

    name: EndpointName
    url: Url
    event_types: EventTypes


class EndpointUpdate(_Body):
    """What is to change of a webhook endpoint."""

    name: EndpointName | None = None
    url: Url | None = None
    event_types: EventTypes | None = None
    enabled: Annotated[
        bool | None, Field(description="false: nothing is sent; true: after a 410, too")
    ] = None


class RotateRequest(_Body):
    """What becomes of the secret that is replaced."""

    keep_old_secret_active_for_24_hours: bool | None = None


class TestRequest(_Body):
    """Which event to send a sample of."""

    event_type: Annotated[str, Field(max_length=64)]


class ReplayRequest(_Body):
    """Which deliveries to send again."""

    since: Annotated[float, Field(ge=0, le=2**40, description="Made then or later; Unix seconds")]
    status: Literal["delivered", "failed", "cancelled"] | None = None


def require_url(services: Services, url: str, param: str = "url") -> None:
    """Raises UrlNotAllowed for a URL that is never asked. Its name is not resolved here."""
    parse_target(url, allowed_hosts(services.settings.webhook_allowed_hosts), param=param)


@cache
def allowed_hosts(listed: str) -> AllowedHosts:
    return parse_allowed(listed)


def require_types(asked: Sequence[str], param: str) -> list[str]:
    """Each type once. Raises InvalidRequest for one that never happens here."""
    known = event_types()
    for name in asked:
        if name not in known:
            raise InvalidRequest(f"'{param}' must be of: {', '.join(known)}", param=param)
    return list(dict.fromkeys(asked))


def take_webhook(document: Any) -> tuple[Any, JobWebhookBody | None]:
    """A body without its ``webhook``, for those who read the rest, and what that was. Raises
    InvalidFields."""
    if not isinstance(document, dict) or MEMBER not in document:
        return document, None
    rest = {name: value for name, value in document.items() if name != MEMBER}
    return rest, parsing.validate(WebhookHolder, {MEMBER: document[MEMBER]}).webhook


def job_webhook(
    services: Services, tenant_id: str, asked: JobWebhookBody | None
) -> JobWebhook | None:
    """The webhook of a job, found good. Raises UrlNotAllowed, InvalidRequest, or
    SigningSecretMissing: nobody could tell its sender."""
    if asked is None:
        return None
    require_url(services, asked.url, "webhook.url")
    events = None
    if asked.events is not None:
        events = tuple(require_types(asked.events, "webhook.events"))
    with services.autocommit.connect() as connection:
        if get_secret(connection, tenant_id) is None:
            raise SigningSecretMissing(
                "make a signing secret first: POST /v1/webhook_signing_secret/rotate",
                param=MEMBER,
            )
    return JobWebhook(asked.url, events)
