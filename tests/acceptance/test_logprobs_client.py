"""How likely tokens were, as an unmodified ``openai`` client reads it, loose and strict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from shared.models_catalog import ModelEntry
from tests.plant import Plant, plant, wait_until

PATIENCE_SECONDS = 120.0
CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "a river"}]}
INCLUDED: Any = ["message.output_text.logprobs"]


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a row looks whether it may end."""
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, database_template: str, postgres_server: Any,
    marks: Path,
) -> Iterator[Plant]:  # fmt: skip
    """One for all: each test makes things of its own."""
    name = "logprobs_client"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    models = [ModelEntry(id="fake", engine="fake", settings={"scratch": str(marks)})]
    folder = tmp_path_factory.mktemp("logprobs") / "plant"
    url = postgres_server.url_of(name)
    with plant(folder, url, models=models, settings={"POLL_SECONDS": "0.1"}) as made:
        yield made.start()


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def client(running: Plant, request: pytest.FixtureRequest) -> openai.OpenAI:
    return running.client(
        timeout=PATIENCE_SECONDS, max_retries=0, _strict_response_validation=request.param
    )


def held(request: pytest.FixtureRequest) -> str:
    """A mark of the test's own; its row ends, half told, once the file is there."""
    return f"{request.node.callspec.id}-{request.node.originalname}"


def test_a_chat_and_its_stream_tell_the_same(
    client: openai.OpenAI, marks: Path, request: pytest.FixtureRequest
) -> None:
    """The stream's first half comes before the row has ended."""
    mark = held(request)
    messages: Any = [{"role": "user", "content": f"[[hold {mark}]] a river"}]
    asked: Any = {"model": "fake", "messages": messages, "logprobs": True, "top_logprobs": 3}
    text, chunks = "", 0
    entries: list[Any] = []
    for chunk in client.chat.completions.create(**asked, seed=4, n=2, stream=True):
        for choice in chunk.choices:
            if choice.index == 1 and choice.logprobs is not None:
                text += choice.delta.content or ""
                entries += choice.logprobs.content or []
                chunks += 1
                assert "".join(entry.token for entry in entries) == text
                (marks / f"hold-{mark}").touch()
    assert chunks == 2
    whole = client.chat.completions.create(**asked, seed=4, n=2).choices[1]
    assert whole.logprobs is not None
    assert whole.logprobs.content == entries
    assert whole.message.content == text
    assert [len(entry.top_logprobs) for entry in entries] == [3] * len(entries)
    assert all(bytes(entry.bytes or []).decode() == entry.token for entry in entries)


def test_a_completion(client: openai.OpenAI, running: Plant) -> None:
    """Strict types know no piece of one: each would have to say why it ended."""
    asked: Any = {"model": "fake", "prompt": ["a river", "and"], "logprobs": 2, "seed": 1}
    found = client.completions.create(**asked).choices[1].logprobs
    assert found is not None
    assert found.tokens is not None
    assert found.text_offset is not None
    assert found.text_offset[0] == len("and")
    assert all(found.tokens[n] in beside for n, beside in enumerate(found.top_logprobs or []))
    tokens: list[str] = []
    offsets: list[int] = []
    for chunk in running.client().completions.create(**asked, stream=True):
        for choice in chunk.choices:
            if choice.index == 1 and choice.logprobs is not None:
                tokens += choice.logprobs.tokens or []
                offsets += choice.logprobs.text_offset or []
    assert (tokens, offsets) == (found.tokens, found.text_offset)


def test_nobody_is_told_without_asking(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(**CHAT).choices[0].logprobs is None
    assert client.completions.create(model="fake", prompt="a").choices[0].logprobs is None
    part: Any = client.responses.create(model="fake", input="a").output[0]
    assert not part.content[0].logprobs


def test_a_response_and_its_events(
    client: openai.OpenAI, marks: Path, request: pytest.FixtureRequest
) -> None:
    mark = held(request)
    entries: list[str] = []
    with client.responses.stream(
        model="fake", input=f"[[hold {mark}]] a river", include=INCLUDED, top_logprobs=2
    ) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                entries += [entry.token for entry in event.logprobs]
                assert "".join(entries) == event.snapshot
                (marks / f"hold-{mark}").touch()
            elif event.type == "response.output_text.done":
                assert [entry.token for entry in event.logprobs] == entries
        final = stream.get_final_response()
    part: Any = final.output[0]
    found = part.content[0].logprobs
    assert [entry.token for entry in found] == entries
    assert [len(entry.top_logprobs) for entry in found] == [2] * len(found)
    assert final.top_logprobs == 2
    again: Any = client.responses.retrieve(final.id).output[0]
    assert again.content[0].logprobs == found
    back: Any = [again.to_dict(), {"role": "user", "content": "and?"}]
    assert client.responses.create(model="fake", input=back).output_text


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
    ],
)
def test_a_mistake_is_named(running: Plant, members: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        running.client().chat.completions.create(**CHAT, **members)
    assert caught.value.param == param


def test_rows_of_a_batch(running: Plant) -> None:
    client = running.client()
    body = CHAT | {"logprobs": True, "top_logprobs": 1, "seed": 6}
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    given = client.files.create(file=("r.jsonl", json.dumps(row).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=given.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", PATIENCE_SECONDS)
    output = client.batches.retrieve(batch.id).output_file_id
    assert output is not None
    line = json.loads(client.files.content(output).text)
    direct = client.chat.completions.create(**body)
    told = line["response"]["body"]["choices"][0]["logprobs"]
    assert direct.choices[0].logprobs is not None
    assert told == direct.choices[0].logprobs.to_dict()
