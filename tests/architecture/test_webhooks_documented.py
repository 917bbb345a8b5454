"""What docs/webhooks.md tells receivers to run does work, and its lists are those of the code."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path
from types import ModuleType

import openai
import pytest

from shared.webhook_events import OTHERS, STEMS, types_of
from shared.webhook_retries import FAILURES_TO_OPEN, PAUSES_SECONDS
from shared.webhook_signing import new_secret, signed_headers

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BODY = b'{"id":"evt_1","object":"event","created_at":1,"type":"batch.failed","data":{"id":"b"}}'
SECRET = new_secret()


def module(number: int, folder: Path) -> ModuleType:
    path = folder / f"snippet_{number}.py"
    path.write_text(SNIPPETS[number].replace("whsec_…", SECRET))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def headers(moment: float, *secrets: str) -> dict[str, str]:
    return signed_headers("evt_1", int(moment), BODY, secrets)


def test_there_are_two_snippets() -> None:
    assert len(SNIPPETS) == 2


def test_the_snippet_with_openais_package(tmp_path: Path) -> None:
    receive = module(0, tmp_path).receive
    assert receive(BODY, headers(time.time(), SECRET)) == "batch.failed b"
    with pytest.raises(openai.InvalidWebhookSignatureError):
        receive(BODY, headers(time.time(), new_secret()))


def test_the_snippet_without_any_package(tmp_path: Path) -> None:
    receive = module(1, tmp_path).receive
    now = time.time()
    assert receive(BODY, headers(now, SECRET), SECRET)["data"] == {"id": "b"}
    assert receive(BODY, headers(now, new_secret(), SECRET), SECRET)["type"] == "batch.failed"
    for wrong in (
        headers(now, new_secret()),
        headers(now - 400, SECRET),
        headers(now + 400, SECRET),
    ):
        with pytest.raises(ValueError, match=r"old|signed"):
            receive(BODY, wrong, SECRET)
    with pytest.raises(ValueError, match="signed"):
        receive(BODY.replace(b"b", b"c"), headers(now, SECRET), SECRET)


@pytest.mark.parametrize("kind", sorted(STEMS))
def test_every_type_of_a_listed_kind_is_on_the_page(kind: str) -> None:
    assert [name for name in types_of(kind) if f"`{name}`" not in PAGE] == []


def test_every_type_that_is_no_jobs_end_is_on_the_page() -> None:
    assert [name for name in OTHERS if f"`{name}`" not in PAGE] == []


def test_the_schedule_on_the_page_is_the_codes() -> None:
    assert PAUSES_SECONDS == (5, 5 * 60, 30 * 60, 2 * 3_600, 8 * 3_600, 24 * 3_600)
    assert "5 s,\n  5 min, 30 min, 2 h, 8 h and 24 h" in PAGE
    assert FAILURES_TO_OPEN == 5
    assert "fails five times in a row" in PAGE
