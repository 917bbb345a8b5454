"""A preview answers soon and in little memory, whatever the template and the data."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from api import production_previews
from tests.integration.api_case import MODEL, ApiCase, api_fixture

__all__ = ["api_fixture"]

WIDE = "x" * 100_000
STEPS = "\n".join(f"- {{name: s{at}, prompt: '{'{{ text }}' * 9}'}}" for at in range(8))
AUDIENCES = ", ".join(f"{{name: a{at}}}" for at in range(100))
GROWING = f"---\nsteps:\n{STEPS}\naudiences: [{AUDIENCES}]\n---\n{{{{ audience.name }}}}"
"""Of each row, 800 prompts of nine times its text."""


def preview(api: ApiCase, template: str, content: str, **asked: Any) -> TestResponse:
    data = api.upload(content.encode(), filename="data.csv", purpose="user_data").json["id"]
    body = {"template": template, "data_file_id": data, "model": MODEL, **asked}
    return api.post("/v1/productions/preview", body)


def test_a_small_request_does_not_make_a_huge_answer(api: ApiCase) -> None:
    reply = preview(api, GROWING, "text\n" + f"{WIDE}\n" * 20, rows=20)
    assert reply.status_code == 400, reply.text[:300]
    assert reply.json["error"]["param"] == "rows"
    assert f"{production_previews.MOST_CHARACTERS} characters" in reply.json["detail"]


def test_columns_that_no_prompt_uses_count_too(api: ApiCase) -> None:
    template = f"---\naudiences: [{AUDIENCES}]\n---\nfor {{{{ audience.name }}}}"
    reply = preview(api, template, f"text\n{WIDE}\n", rows=1)
    assert reply.status_code == 400, reply.text[:300]
    assert reply.json["error"]["param"] == "rows"


def test_what_takes_too_long_is_given_up(api: ApiCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(production_previews, "MOST_SECONDS", -1.0)
    reply = preview(api, "about {{ text }}", "text\na chair\n")
    assert reply.status_code == 400
    assert "seconds" in reply.json["detail"]


def test_what_fits_is_shown_whole(api: ApiCase) -> None:
    reply = preview(api, "about {{ text }}", "text\n" + f"{WIDE}\n" * 20, rows=10)
    assert reply.status_code == 200
    assert len(reply.json["data"]) == 10
