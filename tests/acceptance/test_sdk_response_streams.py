"""An unmodified ``openai`` client, loose and strict, reads responses as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from shared.models_catalog import ModelEntry
from tests.plant import Plant, plant

PATIENCE_SECONDS = 120.0


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
    name = "sdk_response_streams"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    models = [ModelEntry(id="fake", engine="fake", settings={"scratch": str(marks)})]
    folder = tmp_path_factory.mktemp("response streams") / "plant"
    url = postgres_server.url_of(name)
    with plant(folder, url, models=models, settings={"POLL_SECONDS": "0.1"}) as made:
        yield made.start(pools="text")


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def client(running: Plant, request: pytest.FixtureRequest) -> openai.OpenAI:
    return running.client(
        timeout=PATIENCE_SECONDS, max_retries=0, _strict_response_validation=request.param
    )


def held(request: pytest.FixtureRequest) -> str:
    """A mark of the test's own; its row ends, half told, once the file is there."""
    return request.node.callspec.id + request.node.originalname


def test_an_answer_as_it_is_generated(client: openai.OpenAI) -> None:
    told = list(client.responses.create(model="fake", input="Name a river", stream=True))
    kinds = [event.type for event in told]
    assert kinds[:5] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", "response.output_text.delta",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip
    numbers = [event.sequence_number for event in told]
    assert numbers == sorted(set(numbers))
    last = told[-1]
    assert last.type == "response.completed"
    assert last.response == client.responses.retrieve(last.response.id)
    deltas = [event.delta for event in told if event.type == "response.output_text.delta"]
    assert "".join(deltas) == last.response.output_text != ""


def test_the_clients_own_helper_keeps_count(client: openai.OpenAI) -> None:
    with client.responses.stream(model="fake", input="Name a river") as stream:
        whole = stream.get_final_response()
    assert whole.status == "completed"
    assert whole.output_text
    with client.responses.stream(model="fake", input="Name a river", max_output_tokens=4) as stream:
        told = list(stream)
    last = told[-1]
    assert last.type == "response.incomplete"
    assert (
        last.response.output_text
        == [event.snapshot for event in told if event.type == "response.output_text.delta"][-1]
    )


def test_a_stream_that_is_left_is_read_on_by_another(
    client: openai.OpenAI, marks: Path, request: pytest.FixtureRequest
) -> None:
    mark = held(request)
    stream = client.responses.create(
        model="fake", input=f"Name a river [[hold {mark}]]", background=True, stream=True
    )
    said, seen, response_id = "", -1, ""
    for event in stream:
        seen = event.sequence_number
        if event.type == "response.created":
            response_id = event.response.id
        if event.type == "response.output_text.delta":
            said += event.delta
            break
    stream.close()
    assert said
    (marks / f"hold-{mark}").touch()
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=seen))
    assert all(event.sequence_number > seen for event in rest)
    said += "".join(event.delta for event in rest if event.type == "response.output_text.delta")
    last = rest[-1]
    assert last.type == "response.completed"
    assert said == last.response.output_text
    with client.responses.stream(response_id=response_id, starting_after=seen) as again:
        assert again.get_final_response().output_text == said


def test_an_asynchronous_client_reads_it_too(running: Plant) -> None:
    async def read() -> tuple[str, Response | None]:
        said, final = "", None
        async with openai.AsyncOpenAI(
            base_url=f"{running.url}/v1", api_key=running.api_key, timeout=PATIENCE_SECONDS
        ) as client:
            async for event in await client.responses.create(
                model="fake", input="Name a river", stream=True
            ):
                if event.type == "response.output_text.delta":
                    said += event.delta
                elif event.type == "response.completed":
                    final = event.response
        return said, final

    said, final = asyncio.run(read())
    assert final is not None
    assert said == final.output_text


def test_errors(client: openai.OpenAI, request: pytest.FixtureRequest) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(model="fake", input="[[error 400 too_odd]]", stream=True)
    assert caught.value.code == "too_odd"
    stream = client.responses.create(
        model="fake", input="[[error 400 too_odd]]", stream=True, background=True
    )
    last = list(stream)[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    stream = client.responses.create(
        model="fake", input=f"[[hold {held(request)}]]", stream=True, background=True
    )
    first = next(iter(stream))
    assert first.type == "response.created"
    client.responses.cancel(first.response.id)
    last = list(stream)[-1]
    assert last.type == "response.failed"
    assert last.response.status == "cancelled"
