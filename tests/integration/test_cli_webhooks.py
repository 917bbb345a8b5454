"""``pressrun webhooks`` against a real API and a real sender."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from werkzeug.serving import make_server

from pressrun.exit_codes import CommandError, ExitCode
from pressrun.main import main
from pressrun.webhook_commands import parse_since
from shared.egress import parse_allowed
from tests.integration.api_case import ApiCase, make_settings
from tests.integration.webhook_receiver import Receiver, receiver
from tests.plant import wait_until
from worker.egress import Egress
from worker.upkeep.webhooks import WebhookSender

Run = Callable[..., str]


@contextmanager
def served(api: ApiCase) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, api.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def sender(api: ApiCase, made: Receiver) -> Iterator[None]:
    egress = Egress(allowed=parse_allowed(f"127.0.0.1:{made.port}"), timeout_seconds=10)
    sending = WebhookSender(
        api.engine, egress, concurrency=4, timeout_seconds=10, pause_seconds=0.05
    )
    sending.start()
    try:
        yield
    finally:
        sending.stop()


@pytest.fixture
def made() -> Iterator[Receiver]:
    with receiver() as receiving:
        yield receiving


@pytest.fixture
def api(database_url: str, tmp_path: Path, made: Receiver) -> Iterator[ApiCase]:
    allowed = f"127.0.0.1:{made.port}"
    case = ApiCase(make_settings(database_url, tmp_path, webhook_allowed_hosts=allowed))
    with sender(case, made):
        yield case
    case.close()


@pytest.fixture
def run(
    api: ApiCase, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Runs a command that succeeds, and returns what it wrote."""
    with served(api) as url:
        monkeypatch.setenv("PRESSRUN_URL", url)
        monkeypatch.setenv("PRESSRUN_API_KEY", api.key["Authorization"].removeprefix("Bearer "))

        def call(*arguments: str, code: ExitCode = ExitCode.OK) -> str:
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(["webhooks", *arguments])
            out, err = capfd.readouterr()
            assert (ended.value.code or 0) == code, err
            return out if code == ExitCode.OK else err

        yield call


def listed(run: Run, *arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_from_create_to_delete(run: Run, api: ApiCase, made: Receiver) -> None:
    secret = run("create", made.url, "--name", "mine", "--event", "job.cancelled").strip()
    assert secret.startswith("whsec_")
    [endpoint] = listed(run, "list")
    assert (endpoint["name"], endpoint["event_types"]) == ("mine", ["job.cancelled"])
    shown = run("list")
    assert endpoint["id"] in shown
    assert "answers" in shown

    assert "200" in run("test", endpoint["id"], "--event", "job.failed")
    Webhook(secret).verify(made.received[0].body, made.received[0].headers)

    job_id = api.submit()
    api.post(f"/v1/jobs/{job_id}/cancel")
    made.wait(2)
    wait_until(lambda: len(listed(run, "deliveries", "--status", "delivered")) == 2, 30)
    [delivery] = listed(run, "deliveries", endpoint["id"], "--job", job_id)
    assert delivery["attempts"][0]["status_code"] == 200
    assert job_id in run("deliveries", "--job", job_id)

    assert delivery["id"] in run("replay", delivery["id"])
    made.wait(3)
    wait_until(lambda: len(listed(run, "deliveries", "--status", "delivered")) == 2, 30)
    assert "sent again: 1" in run("replay", endpoint["id"], "--since", "1h")
    made.wait(4)
    assert run("replay", endpoint["id"], code=ExitCode.USAGE)
    assert run("replay", "whd_nothing", code=ExitCode.REFUSED)

    assert run("rotate", endpoint["id"], "--keep-old").strip() != secret
    assert run("rotate").startswith("whsec_")
    assert endpoint["id"] in run("delete", endpoint["id"])
    assert listed(run, "list") == []


def test_without_events_an_endpoint_is_told_everything(run: Run, made: Receiver) -> None:
    endpoint = listed(run, "create", made.url)
    assert {"batch.completed", "job.succeeded"} <= set(endpoint["event_types"])


def test_a_url_that_is_refused_and_one_that_does_not_answer(run: Run, api: ApiCase) -> None:
    assert "url_not_allowed" in run("create", "https://127.0.0.1/", code=ExitCode.REFUSED)
    endpoint = listed(run, "create", "https://nobody.invalid.pressrun.example.com/")
    error = run("test", endpoint["id"], code=ExitCode.REFUSED)
    assert "receiver_unreachable" in error


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 4_600), ("1h", 6_400), ("2d", 0), ("1970-01-01T00:01:00+00:00", 60)],
)
def test_times_of_a_replay(text: str, seconds: float) -> None:
    assert parse_since(text, 10_000.0) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5m", "yesterday", "1w", "1.5h"])
def test_times_that_are_none_are_wrong_usage(text: str) -> None:
    with pytest.raises(CommandError) as error:
        parse_since(text, 10_000.0)
    assert error.value.exit_code == ExitCode.USAGE
