"""Webhooks without a database: names, signatures, and when to try again."""

from __future__ import annotations

import json
import random
import re
import time
from datetime import UTC, datetime

import openai
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from shared.db.jobs import KIND_PREFIXES
from shared.lifecycle.webhooks import origin_of
from shared.states import JobState, is_terminal
from shared.webhook_events import ENDING, end_told, event_type, event_types, payload, types_of
from shared.webhook_retries import (
    FAILURES_TO_OPEN,
    LONGEST_OPEN_SECONDS,
    MAX_ATTEMPTS,
    MAX_RETRY_AFTER_SECONDS,
    PAUSES_SECONDS,
    open_seconds,
    pause_seconds,
    read_retry_after,
)
from shared.webhook_signing import hint_of, new_secret, signed_headers

ENDS = [state for state in JobState if is_terminal(state)]
BODY = payload(event_id="evt_1", kind="batch.completed", created_at=1_700_000_000, about="batch_1")


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KIND_PREFIXES)
def test_every_end_of_every_kind_has_a_type_of_its_own(kind: str) -> None:
    names = types_of(kind)
    assert len(ENDS) == 4
    assert len(set(names)) == len(names) == len(ENDS) + (kind == "response")
    assert set(names) <= set(event_types())
    assert all(re.fullmatch(r"[a-z_]+(\.[a-z_]+){1,2}", name) for name in names)


def test_openais_names_are_used_where_openai_has_any() -> None:
    assert types_of("batch") == (
        "batch.completed", "batch.failed", "batch.cancelled", "batch.expired",
    )  # fmt: skip
    assert event_type("fine_tune", "succeeded") == "fine_tuning.job.succeeded"
    assert event_type("fine_tune", "cancelled") == "fine_tuning.job.cancelled"
    assert event_type("video", "succeeded") == "video.completed"
    assert event_type("generate", "succeeded") == "job.succeeded"
    assert event_type("campaign", "succeeded") == "campaign.completed"
    assert event_type("something_new", "succeeded") == "something_new.completed"
    assert event_type("response", "succeeded", cut=True) == "response.incomplete"
    assert event_type("response", "failed", cut=True) == "response.failed"
    assert event_type("generate", "succeeded", cut=True) == "job.succeeded"


@pytest.mark.parametrize(
    ("kind", "told", "state"),
    [
        ("generate", "job.succeeded", "succeeded"),
        ("batch", "batch.completed", "succeeded"),
        ("batch", "batch.expired", "expired"),
        ("fine_tune", "fine_tune.failed", "failed"),
        ("fine_tune", "job.cancelled", "cancelled"),
        ("batch", "batch.finalizing", None),
        ("fine_tune", "trial.failed", None),
        ("fine_tune", "fine_tune.trial.failed", None),
        ("generate", "job.progress", None),
    ],
)
def test_only_events_about_the_job_itself_tell_its_end(
    kind: str, told: str, state: str | None
) -> None:
    assert end_told(kind, told) == state
    assert bool(re.search(ENDING, told)) or state is None


def test_the_body_is_thin() -> None:
    assert json.loads(BODY) == {
        "id": "evt_1",
        "object": "event",
        "created_at": 1_700_000_000,
        "type": "batch.completed",
        "data": {"id": "batch_1"},
    }


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://A.example.com:8443/x/y?z", "https://a.example.com:8443"),
        ("https://a.example.com", "https://a.example.com"),
        ("https://a.example.com?x=/y", "https://a.example.com"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_urls_of_one_server_share_a_circuit(url: str, origin: str) -> None:
    assert origin_of(url) == origin


# --- signatures -------------------------------------------------------------------------------


def test_libraries_of_receivers_verify_what_is_signed() -> None:
    secret = new_secret()
    headers = signed_headers("evt_1", int(time.time()), BODY, [secret])
    assert Webhook(secret).verify(BODY, headers)["type"] == "batch.completed"
    event = openai.OpenAI(api_key="x").webhooks.unwrap(BODY, headers, secret=secret)
    assert type(event).__name__ == "BatchCompletedWebhookEvent"
    assert event.data.id == "batch_1"


def test_in_a_rotation_either_secret_verifies_and_no_other() -> None:
    new, old = new_secret(), new_secret()
    headers = signed_headers("evt_1", int(time.time()), BODY, [new, old])
    assert len(headers["webhook-signature"].split(" ")) == 2
    client = openai.OpenAI(api_key="x")
    for secret in (new, old):
        Webhook(secret).verify(BODY, headers)
        client.webhooks.verify_signature(BODY, headers, secret=secret)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(BODY + b" ", headers)


def test_a_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks specification's own test suite."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret]
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_long_random_and_hinted_at() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert len(hint_of(secret)) == len("whsec_…") + 4
        assert secret[6:20] not in hint_of(secret)


# --- trying again -----------------------------------------------------------------------------


def test_the_schedule_has_seven_attempts_with_jitter_that_only_adds() -> None:
    assert MAX_ATTEMPTS == 7
    assert PAUSES_SECONDS == (5, 300, 1_800, 7_200, 28_800, 86_400)
    rng = random.Random(1)
    for attempt, pause in enumerate(PAUSES_SECONDS, start=1):
        rolled = [pause_seconds(attempt, None, rng=rng) or 0 for _ in range(200)]
        assert pause <= min(rolled) < max(rolled) <= 1.2 * pause
        assert max(rolled) > 1.1 * pause
    assert pause_seconds(MAX_ATTEMPTS, None) is None
    assert pause_seconds(MAX_ATTEMPTS, 5.0) is None


def test_a_receiver_may_ask_for_a_longer_pause_up_to_a_point() -> None:
    assert pause_seconds(1, 60.0) == 60.0
    assert (pause_seconds(2, 1.0) or 0) >= 300
    assert pause_seconds(1, 10**9) == MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("٣", None),
        ("0", 0.0), ("120", 120.0), (" 7 ", 7.0), ("9" * 64, 999_999_999.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0), ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:30 GMT", None), ("Wed, 21 Oct 99999 07:28:30 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_in_its_forms(value: str | None, seconds: float | None) -> None:
    now = datetime(2015, 10, 21, 7, 28, 0, tzinfo=UTC)
    assert read_retry_after(value, now) == seconds


def test_a_circuit_opens_after_failures_in_a_row_and_longer_each_time() -> None:
    assert [open_seconds(n) for n in range(FAILURES_TO_OPEN)] == [0.0] * FAILURES_TO_OPEN
    steps = [open_seconds(FAILURES_TO_OPEN + n) for n in range(8)]
    assert steps == [30, 60, 120, 240, 480, 600, 600, 600]
    assert open_seconds(10**9) == LONGEST_OPEN_SECONDS
