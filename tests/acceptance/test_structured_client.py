"""Answers held to schemas, by an unmodified ``openai`` client through every door of the plant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from pydantic import BaseModel, ConfigDict, Field

from shared.models_catalog import ModelEntry
from shared.specs.formats import UNFINISHED
from tests.plant import Plant, plant

TEXT = "smollm2-135m-instruct"
MESSAGES: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "Write an ad for a tent for two, as JSON."}
]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=20)
    grams: int = Field(ge=1, le=5000)


class Ad(BaseModel):
    """An advertisement."""

    model_config = ConfigDict(extra="forbid")

    headline: str = Field(max_length=30, description="Short")
    tone: Literal["warm", "dry"]
    parts: list[Part] = Field(min_length=1, max_length=2)
    slogan: str | None = Field(max_length=20)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    database_template: str,
    postgres_server: Any,
    models_dir: Path,
) -> Iterator[Plant]:
    name = "structured_client"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    folder = tmp_path_factory.mktemp("structured client")
    source = str(models_dir / "SmolLM2-135M-Instruct")
    models = [
        ModelEntry(id="fake", engine="fake"),
        ModelEntry(id=TEXT, engine="text", source=source),
    ]
    url = postgres_server.url_of(name)
    settings = {"POLL_SECONDS": "0.1"}
    with plant(folder / "plant", url, models=models, settings=settings) as made:
        yield made.start(pools="text")


@pytest.fixture
def client(running: Plant) -> openai.OpenAI:
    """Its retries find the first try's job, should a busy machine answer too late."""
    return running.client(timeout=120, max_retries=5, _strict_response_validation=True)


def schema_format(model: type[BaseModel]) -> Any:
    named = {"name": "it", "schema": model.model_json_schema(), "strict": True}
    return {"type": "json_schema", "json_schema": named}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_model_answers_with_an_object_of_a_class(client: openai.OpenAI) -> None:
    made = client.chat.completions.parse(
        model=TEXT, messages=MESSAGES, response_format=Ad, max_tokens=400, temperature=0, seed=1
    )
    [choice] = made.choices
    assert choice.finish_reason == "stop", choice
    assert isinstance(choice.message.parsed, Ad)
    assert choice.message.refusal is None


def test_the_same_of_the_fake_model_is_the_same_each_time(client: openai.OpenAI) -> None:
    told = [
        client.chat.completions.parse(
            model="fake", messages=MESSAGES, response_format=Ad, n=2, seed=seed
        )
        for seed in (1, 1, 2)
    ]
    first, again, other = ([c.message.parsed for c in made.choices] for made in told)
    assert all(isinstance(ad, Ad) for ad in first)
    assert first == again != other
    assert first[0] != first[1]


def test_a_cut_answer_is_an_error_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError) as cut:
        client.chat.completions.parse(
            model="fake", messages=MESSAGES, response_format=Ad, max_tokens=1
        )
    [choice] = cut.value.completion.choices
    assert choice.message.refusal == UNFINISHED


def test_a_stream_ends_with_the_whole_object(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="fake", messages=MESSAGES, response_format=Ad, seed=1
    ) as stream:
        final = stream.get_final_completion()
    whole = client.chat.completions.parse(
        model="fake", messages=MESSAGES, response_format=Ad, seed=1
    )
    assert final.choices[0].message.parsed == whole.choices[0].message.parsed


def test_a_stream_says_why_an_answer_is_no_use(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="fake",
        messages=MESSAGES,
        response_format=schema_format(Ad),
        max_tokens=1,
        stream=True,
    )
    last = [chunk.choices[0] for chunk in chunks if chunk.choices][-1]
    assert (last.finish_reason, last.delta.refusal) == ("length", UNFINISHED)


def test_a_response_is_parsed_and_repeats_its_format(client: openai.OpenAI) -> None:
    made = client.responses.parse(model="fake", input="An ad, as JSON.", text_format=Ad)
    assert isinstance(made.output_parsed, Ad)
    found = client.responses.retrieve(made.id)
    assert found.text is not None
    assert found.text.format is not None
    assert found.text.format.type == "json_schema"


def test_a_job_and_rows_of_a_batch_are_held_too(running: Plant, client: openai.OpenAI) -> None:
    body = {"messages": MESSAGES, "model": "fake", "response_format": schema_format(Ad)}
    asked = {"endpoint": "/v1/chat/completions", "body": body}
    with running.http() as http:
        made = http.post("/v1/jobs", json=asked, headers={"Prefer": "wait=60"}).raise_for_status()
        job = made.json()
        result = http.get(f"/v1/jobs/{job['id']}/result", follow_redirects=True).raise_for_status()
    Ad.model_validate_json(result.json()["choices"][0]["message"]["content"])

    impossible = {"type": "string", "minLength": 5, "maxLength": 2}
    named = {"type": "json_schema", "json_schema": {"name": "it", "schema": impossible}}
    bodies = [body, body | {"response_format": named}, body | {"seed": 4}]
    lines = [
        {"custom_id": f"row-{i}", "method": "POST", "url": "/v1/chat/completions", "body": one}
        for i, one in enumerate(bodies)
    ]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("rows.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    ended = running.wait_batch(batch.id, 120)
    results = running.results(ended)
    for name in ("row-0", "row-2"):
        said = results[name]["response"]["body"]["choices"][0]["message"]["content"]
        Ad.model_validate_json(said)
    assert results["row-1"]["response"]["status_code"] == 400
    assert results["row-1"]["response"]["body"]["error"]["code"] == "invalid_schema"


def test_a_schema_that_cannot_be_kept_is_refused_at_once(client: openai.OpenAI) -> None:
    named: Any = {"name": "it", "schema": {"properties": {"a": {"not": {}}}}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="fake",
            messages=MESSAGES,
            response_format={"type": "json_schema", "json_schema": named},
        )
    assert refused.value.code == "invalid_schema"
    assert refused.value.param == "response_format.json_schema.schema.properties.a.not"
