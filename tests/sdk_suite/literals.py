"""A plugin of pytest's for OpenAI's tests: they name things by ids of their own, and have no key.

A request that names ``batch_id``, ``file-abc123`` and so on is sent with the id of such a thing,
made for this one request, so that a test that deletes it leaves the next one something to delete.
Nothing else of a request is changed, and nothing of an answer.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

KEY = "PRESSRUN_TEST_SDK_KEY"
MODEL = "gpt-6-astra"
_EXAMPLE = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
_ROW = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/responses",
    "body": {"model": MODEL, "input": "a"},
}


@functools.cache
def _client() -> openai.OpenAI:
    return openai.OpenAI(base_url=os.environ["TEST_API_BASE_URL"], api_key=os.environ[KEY])


def _file(purpose: str, *rows: dict[str, Any]) -> str:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    return _client().files.create(file=("a.jsonl", data), purpose=purpose).id  # type: ignore[arg-type]


def _batch_file() -> str:
    return _file("batch", _ROW)


def _batch() -> str:
    made = _client().batches.create(
        input_file_id=_batch_file(), endpoint="/v1/responses", completion_window="24h"
    )
    return made.id


def _training_file() -> str:
    return _file("fine-tune", *[_EXAMPLE] * 10)


def _fine_tuning() -> str:
    made = _client().fine_tuning.jobs.create(model=MODEL, training_file=_training_file())
    return made.id


def _upload() -> str:
    made = _client().uploads.create(
        bytes=1, filename="a", mime_type="text/plain", purpose="assistants"
    )
    return made.id


def _response() -> str:
    return _client().responses.create(model=MODEL, input="a").id


def _video() -> str:
    return _client().videos.create_and_poll(prompt="a", model="sora-2", poll_interval_ms=200).id


LITERALS: dict[str, Callable[[], str]] = {
    "input_file_id": _batch_file,
    "file-abc123": _training_file,
    "file_id": _batch_file,
    "batch_id": _batch,
    "ft-AF1WoRqd3aJAHsqc9NY7iL8F": _fine_tuning,
    "upload_abc123": _upload,
    "resp_677efb5139a88190b512bc3fef8e535d": _response,
    "resp_123": _response,
    "response_id": _response,
    "video_123": _video,
}


def _replaced(request: httpx2.Request) -> httpx2.Request:
    if request.headers.get("Authorization") == f"Bearer {os.environ[KEY]}":
        return request  # one that makes such a thing
    path, content = str(request.url), request.read()
    for literal, make in LITERALS.items():
        value = f':"{literal}"'.encode()  # some members are called as what they hold
        if f"/{literal}" in path or value in content:
            made = make()
            path = path.replace(f"/{literal}", f"/{made}")
            content = content.replace(value, f':"{made}"'.encode())
    headers = request.headers.copy()
    headers["Authorization"] = f"Bearer {os.environ[KEY]}"
    headers.pop("Content-Length", None)
    return httpx2.Request(
        request.method, path, headers=headers, content=content, extensions=request.extensions
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "respx2_mock" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="it asks no server"))


def pytest_configure() -> None:
    plain = httpx2.HTTPTransport.handle_request

    def handle_request(self: httpx2.HTTPTransport, request: httpx2.Request) -> httpx2.Response:
        return plain(self, _replaced(request))

    httpx2.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]
