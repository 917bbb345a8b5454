"""Identifiers: visible prefix, in order of time, never twice."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from shared import ids

MAKERS = {
    ids.new_job_id: "job_",
    ids.new_batch_id: "batch_",
    ids.new_file_id: "file-",
    ids.new_tenant_id: "ten_",
    ids.new_key_id: "key_",
    ids.new_session_id: "ses_",
    ids.new_video_id: "video_",
    ids.new_campaign_id: "campaign_",
}


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr("shared.ids.time", SimpleNamespace(time=lambda: seconds))


@pytest.mark.parametrize(("make", "prefix"), MAKERS.items())
def test_an_id_is_its_prefix_and_26_plain_characters(make: object, prefix: str) -> None:
    made = make()  # type: ignore[operator]
    assert re.fullmatch(prefix + "[0-9a-hjkmnp-tv-z]{26}", made)


def test_later_ids_sort_after_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for millisecond in [0, 1, 31, 32, 1_000, 1_760_000_000_000, 2**48 - 1]:
        set_clock(monkeypatch, millisecond / 1000)
        made.append(ids.new_id(""))
    assert made == sorted(made)
    assert {len(each) for each in made} == {ids.LENGTH}


def test_ids_of_one_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, 1_760_000_000.0)
    made = {ids.new_job_id() for _ in range(10_000)}
    assert len(made) == 10_000
    assert len({each[:14] for each in made}) == 1  # prefix and time


def test_an_artifacts_id_is_that_of_its_row_and_name() -> None:
    made = ids.artifact_id("job_1-0", "0.png")
    assert re.fullmatch("art_[0-9a-hjkmnp-tv-z]{26}", made)
    assert ids.artifact_id("job_1-0", "0.png") == made
    others = {
        ids.artifact_id(row, name)
        for row in ("job_1-0", "job_1-1", "job_1-10")
        for name in ("0.png", "1.png", ".png")
    }
    assert len(others) == 9
