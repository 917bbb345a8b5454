from __future__ import annotations

import json
from pathlib import Path

import pytest

from pressrun.exit_codes import ExitCode
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer, campaign
from tests.unit.pressrun.test_demo_command import bundle

BRIEF = json.dumps({"model": "m", "product": "a tent"})


@pytest.fixture
def planned(connected: FakeServer) -> FakeServer:
    connected.campaigns["campaign_1"] = [campaign("running"), campaign("succeeded")]
    connected.artifacts = [
        {"id": "art_sheet", "role": "contact_sheet"},
        {"id": "art_zip", "role": "bundle"},
    ]
    connected.files["art_zip"] = bundle()
    return connected


def test_submitting_sends_the_brief_once_and_prints_the_id(planned: FakeServer, run: Run) -> None:
    ended = run("campaign", "submit", BRIEF)
    assert ended.code == ExitCode.OK, ended.err
    assert ended.out.strip() == "campaign_1"
    [sent] = planned.requests("POST", "/v1/campaigns")
    assert sent.body == json.loads(BRIEF)
    assert sent.headers["Idempotency-Key"]


def test_watching_with_an_output_folder_unpacks_the_bundle(planned: FakeServer, run: Run) -> None:
    Path("sheet").mkdir()
    Path("sheet/of-an-earlier-one.txt").write_text("old")
    ended = run("campaign", "watch", "campaign_1", "--output", "sheet")
    assert ended.code == ExitCode.OK, ended.err
    assert [path.name for path in Path("sheet").iterdir()] == ["index.html"]
    assert "running: 4/9 steps" in ended.err
    assert Path("sheet/index.html").resolve().as_uri() in ended.err


def test_a_bundle_that_is_no_zip_is_said_to_be_none(planned: FakeServer, run: Run) -> None:
    planned.files["art_zip"] = b"no zip"
    ended = run("campaign", "watch", "campaign_1", "--output", "sheet")
    assert ended.code == ExitCode.USAGE
    assert "cannot unpack" in ended.err


def test_steps_and_lists_are_tables_or_json(planned: FakeServer, run: Run) -> None:
    assert "headline en 1" in run("campaign", "steps", "campaign_1").out
    listed = run("campaign", "list", "--json").out
    assert [one["id"] for one in json.loads(listed)] == ["campaign_1"]
    assert "campaign_1: succeeded" in run("campaign", "cancel", "campaign_1").out


def test_a_brief_that_is_no_json_is_wrong_usage(planned: FakeServer, run: Run) -> None:
    assert run("campaign", "submit", "{").code == ExitCode.USAGE
    assert not planned.requests("POST", "/v1/campaigns")
