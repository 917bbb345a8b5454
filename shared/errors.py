"""Every error a tenant can meet: a stable ``code``, a sentence, and where it happened.

Errors know nothing of HTTP: ``api/errors.py`` maps each code to a status, and a test walks the
subclasses so that none is forgotten.
"""

from __future__ import annotations


class PressrunError(Exception):
    """Base of all domain errors. ``param`` names the field at fault, when one is."""

    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(PressrunError):
    """The input is malformed; ``param`` says where."""

    code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    """A parameter that this server does not implement; refused rather than ignored."""

    code = "unsupported_parameter"


class UnsupportedEndpoint(InvalidRequest):
    """No engine serves this endpoint."""

    code = "unsupported_endpoint"


class StreamingUnsupported(InvalidRequest):
    """``stream: true`` inside a job or a batch row."""

    code = "streaming_unsupported"


class ModelNotFound(PressrunError):
    """The model is unknown to this tenant, or does not serve the endpoint."""

    code = "model_not_found"


class ModerationNotConfigured(PressrunError):
    """No model is there to moderate, and the call names none."""

    code = "moderation_not_configured"


class ModelNotTunable(InvalidRequest):
    """The model exists, but the recipe can't start from a model of its kind."""

    code = "model_not_tunable"


class ModelNotMeasurable(InvalidRequest):
    """The model exists, but there is no evaluation for models of its kind."""

    code = "model_not_measurable"


class ModelNotOptimizable(InvalidRequest):
    """The model exists, but this can't be done to it."""

    code = "model_not_optimizable"


class InvalidSchema(InvalidRequest):
    """A JSON schema that answers can't be held to; ``param`` is the place in it."""

    code = "invalid_schema"


class ChecksumMismatch(InvalidRequest):
    """The bytes that arrived are not those that the caller meant."""

    code = "checksum_mismatch"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and requested output do not fit the model's context."""

    code = "context_length_exceeded"


class SigningSecretMissing(InvalidRequest):
    """A webhook of a job's own, of a tenant who has no secret to tell its sender by."""

    code = "signing_secret_missing"


class UrlNotAllowed(InvalidRequest):
    """A URL that this server never asks: not https, or not of the public internet."""

    code = "url_not_allowed"


class ReceiverUnreachable(PressrunError):
    """A webhook's receiver could not be asked; the message says why in a word."""

    code = "receiver_unreachable"


class SenderUnavailable(PressrunError):
    """No upkeep worker has sent a webhook in time; it is sent once one runs."""

    code = "sender_unavailable"


class NotFound(PressrunError):
    """No such object for this tenant."""

    code = "not_found"


class Conflict(PressrunError):
    """The object's state does not allow the call."""

    code = "conflict"


class IdempotencyMismatch(PressrunError):
    """An Idempotency-Key came back with another body."""

    code = "idempotency_mismatch"


class RequestUnderWay(PressrunError):
    """The same request is being worked on at this moment; its result is there soon."""

    code = "request_under_way"


class Unauthenticated(PressrunError):
    """No key, a malformed key, or one that is unknown, expired or revoked."""

    code = "invalid_api_key"


class Forbidden(PressrunError):
    """The key is valid but not for this call."""

    code = "forbidden"


class PayloadTooLarge(PressrunError):
    """The body or file is over the limit."""

    code = "payload_too_large"


class UnsupportedMediaType(PressrunError):
    """The request's content type is not the one this route reads."""

    code = "unsupported_media_type"


class UnsupportedMedia(InvalidRequest):
    """A picture or sound that is of no format read here, or damaged."""

    code = "unsupported_media"


class MediaTooLarge(PressrunError):
    """A picture or sound has too many bytes or pixels."""

    code = "media_too_large"


class TooManyRequests(PressrunError):
    """More requests wait for their results than this process can hold; nothing was accepted."""

    code = "too_many_requests"


class StorageUnavailable(PressrunError):
    """The artifact store does not answer; nothing was accepted."""

    code = "storage_unavailable"


class StorageFull(PressrunError):
    """The artifact store has no room left."""

    code = "storage_full"


class DatabaseUnavailable(PressrunError):
    """The database does not answer; nothing was accepted."""

    code = "database_unavailable"


class RateLimitExceeded(PressrunError):
    """The tenant calls more often than it may; ``retry_after_seconds`` is when it may again."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QuotaExceeded(PressrunError):
    """More than the tenant may have; ``param`` names the quota. Nothing was accepted."""

    code = "quota_exceeded"

    def __init__(
        self, message: str, *, param: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.retry_after_seconds = retry_after_seconds


class BudgetExceeded(PressrunError):
    """The tenant's budget does not allow for the work; nothing was accepted."""

    code = "budget_exceeded"


class TenantDisabled(PressrunError):
    """The key is valid, and its tenant is switched off."""

    code = "tenant_disabled"
