"""Settings: read once, refused by name, secrets kept out of sight."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.settings import CLIENT_VARIABLES, PREFIX, Settings, SettingsError, load_settings

GOOD = {
    "PRESSRUN_DATABASE_URL": "postgresql+psycopg://postgres@/pressrun",
    "PRESSRUN_STORAGE_DIR": "/srv/artifacts",
    "PRESSRUN_SIGNING_KEY": "0123456789abcdef",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_three_variables_are_enough() -> None:
    settings = load_settings()
    assert settings.database_url == GOOD["PRESSRUN_DATABASE_URL"]
    assert settings.storage_dir == Path("/srv/artifacts")
    assert (settings.heartbeat_seconds, settings.session_ttl_seconds) == (5.0, 30.0)
    assert (settings.poll_seconds, settings.ready_window) == (2.0, 32)
    assert settings.broker_url == ""


@pytest.mark.parametrize("name", ["PRESSRUN_DATABASE_URL", "PRESSRUN_SIGNING_KEY"])
def test_a_missing_setting_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match=name):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRESSRUN_DATABASE_URL", "postgres://elsewhere"),
        ("PRESSRUN_SIGNING_KEY", "short"),
        ("PRESSRUN_HEARTBEAT_SECONDS", "0"),
        ("PRESSRUN_HEARTBEAT_SECONDS", "soon"),
        ("PRESSRUN_READY_WINDOW", "0"),
        ("PRESSRUN_READY_WINDOW", "1.5"),
        ("PRESSRUN_LOG_FORMAT", "xml"),
        ("PRESSRUN_LOG_LEVEL", "NOISY"),
        ("PRESSRUN_DOWNLOAD_URL_SECONDS", "9999999"),
        ("PRESSRUN_HUB_OFFLINE", "perhaps"),
    ],
)
def test_a_bad_value_is_named_and_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        load_settings()
    if name == "PRESSRUN_SIGNING_KEY":
        assert value not in str(caught.value)


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_READY_WINDOW", "many")
    monkeypatch.setenv("PRESSRUN_MAX_BATCH_ROWS", "-1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "PRESSRUN_READY_WINDOW" in str(caught.value)
    assert "PRESSRUN_MAX_BATCH_ROWS" in str(caught.value)


def test_a_lease_must_outlive_its_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_HEARTBEAT_SECONDS", "15")
    with pytest.raises(SettingsError, match="PRESSRUN_SESSION_TTL_SECONDS"):
        load_settings()
    monkeypatch.setenv("PRESSRUN_SESSION_TTL_SECONDS", "31")
    load_settings()


def test_a_name_with_a_typing_error_stops_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_POLL_SECOND", "2")
    with pytest.raises(SettingsError, match="PRESSRUN_POLL_SECOND"):
        load_settings()


@pytest.mark.parametrize("name", sorted(CLIENT_VARIABLES))
def test_the_command_lines_variables_are_let_pass(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    load_settings()


def test_artifacts_go_to_one_place_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_S3_BUCKET", "bucket")
    with pytest.raises(SettingsError, match="exactly one"):
        load_settings()
    monkeypatch.delenv("PRESSRUN_STORAGE_DIR")
    assert load_settings().s3_bucket == "bucket"
    monkeypatch.delenv("PRESSRUN_S3_BUCKET")
    with pytest.raises(SettingsError, match="exactly one"):
        load_settings()


def test_settings_do_not_change_and_do_not_show_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADMIN_KEY", "S3_SECRET_KEY"):
        monkeypatch.setenv(PREFIX + name, "canary-secret")
    settings = load_settings()
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "canary-secret" not in shown
        assert GOOD["PRESSRUN_SIGNING_KEY"] not in shown
    with pytest.raises(ValidationError):
        settings.ready_window = 5


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
