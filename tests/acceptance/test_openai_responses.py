"""An unmodified ``openai`` client, strict about what it reads: responses in the background and not,
moderations by a classifier, both as rows of batches, and models whose names hold ``:`` and ``/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from shared.models_catalog import ModelEntry
from tests.integration.tiny_moderator import BOTH, HARMLESS, SPAM, VIOLENT, make_moderator
from tests.plant import Plant, plant, wait_until

GUARD = "guards/tiny:1"
ENDED = {"completed", "incomplete", "failed", "cancelled"}
FOREVER = "wait [[sleep-forever]]"
PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, database_template: str, postgres_server: Any
) -> Iterator[Plant]:
    """One for all: each test makes things of its own."""
    name = "openai_responses"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    folder = tmp_path_factory.mktemp("responses client")
    models = [
        ModelEntry(id="fake", engine="fake"),
        ModelEntry(
            id=GUARD,
            engine="classifier",
            source=str(make_moderator(folder / "guard")),
            endpoints=["/v1/classifications", "/v1/moderations"],
            settings={"dtype": "float32"},
        ),
    ]
    settings = {"POLL_SECONDS": "0.1", "MODERATION_THRESHOLD": "0.6,Violence=0.4"}
    url = postgres_server.url_of(name)
    with plant(folder / "plant", url, models=models, settings=settings) as made:
        yield made.start(pools="text")


@pytest.fixture
def client(running: Plant) -> openai.OpenAI:
    return running.client(timeout=60, max_retries=0, _strict_response_validation=True)


def ended(client: openai.OpenAI, response_id: str) -> Response:
    found: list[Response] = []

    def is_over() -> bool:
        found[:] = [client.responses.retrieve(response_id)]
        return found[0].status in ENDED

    wait_until(is_over, PATIENCE_SECONDS, lambda: str(found))
    return found[0]


# --- responses ------------------------------------------------------------------------------------


def test_a_response_that_is_waited_for(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="fake",
        instructions="Be brief.",
        input="Name a river",
        temperature=0.5,
        top_p=0.9,
        metadata={"for": "the brochure"},
        text={"format": {"type": "text"}},
    )
    assert (made.object, made.status, made.model) == ("response", "completed", "fake")
    assert made.id.startswith("resp_")
    chat = client.chat.completions.create(
        model="fake",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Name a river"},
        ],
    )
    assert made.output_text == chat.choices[0].message.content
    assert made.usage is not None
    assert chat.usage is not None
    assert made.usage.input_tokens == chat.usage.prompt_tokens == 5
    assert made.usage.output_tokens == chat.usage.completion_tokens
    assert (made.temperature, made.top_p, made.metadata) == (0.5, 0.9, {"for": "the brochure"})
    assert made.background is False
    assert client.responses.retrieve(made.id) == made


def test_a_response_in_the_background(client: openai.OpenAI, running: Plant) -> None:
    made = client.responses.create(
        model="fake", input="Name a river [[delay 0.3]]", background=True, max_output_tokens=4
    )
    assert (made.status, made.output, made.usage) == ("queued", [], None)
    done = ended(client, made.id)
    assert (done.status, done.created_at) == ("incomplete", made.created_at)
    assert done.incomplete_details is not None
    assert done.incomplete_details.reason == "max_output_tokens"
    assert len(done.output_text.split()) == 4
    assert done.background is True
    with running.http() as http:
        job = http.get(f"/v1/jobs/{made.id}").json()
        assert (job["kind"], job["state"], job["endpoint"]) == (
            "response", "succeeded", "/v1/responses",
        )  # fmt: skip
        assert job["result"] == http.get(f"/v1/responses/{made.id}").json()
        assert (job["usage"]["output_tokens"], "artifacts_url" in job) == (4, False)


def test_a_conversation_goes_on(client: openai.OpenAI) -> None:
    first = client.responses.create(model="fake", input="Name a river", instructions="One word.")
    second = client.responses.create(
        model="fake",
        previous_response_id=first.id,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Another one"}]}],
    )
    assert second.previous_response_id == first.id
    assert second.instructions is None
    client.responses.delete(first.id)
    third = client.responses.create(
        model="fake", previous_response_id=second.id, input="And a third", background=True
    )
    third = ended(client, third.id)
    turns = [
        {"role": "user", "content": "Name a river"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "Another one"},
        {"role": "assistant", "content": second.output_text},
        {"role": "user", "content": "And a third"},
    ]
    chat = client.chat.completions.create(model="fake", messages=turns)  # type: ignore[arg-type]
    assert third.output_text == chat.choices[0].message.content
    listed: list[Any] = list(client.responses.input_items.list(third.id, limit=2, order="asc"))
    said = [(item.role, item.content[0].text) for item in listed]
    assert said == [(turn["role"], turn["content"]) for turn in turns]
    again: list[Any] = list(client.responses.input_items.list(third.id, limit=2))
    assert [item.id for item in again] == [item.id for item in reversed(listed)]
    back = client.responses.create(
        model="fake",
        input=[item.model_dump(exclude_none=True) for item in listed[:1] + second.output],
    )
    assert back.status == "completed"


def test_cancelling_ends_what_runs_and_changes_nothing_later(client: openai.OpenAI) -> None:
    made = client.responses.create(model="fake", input=FOREVER, background=True)
    wait_until(lambda: client.responses.retrieve(made.id).status == "in_progress", PATIENCE_SECONDS)
    with pytest.raises(openai.ConflictError, match="cancel it first"):
        client.responses.delete(made.id)
    client.responses.cancel(made.id)
    assert ended(client, made.id).status == "cancelled"
    assert client.responses.cancel(made.id).status == "cancelled"
    with pytest.raises(openai.ConflictError) as caught:
        client.responses.create(model="fake", input="x", previous_response_id=made.id)
    assert caught.value.param == "previous_response_id"
    done = client.responses.create(model="fake", input="x")
    assert client.responses.cancel(done.id) == done
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_failure_tells_why(client: openai.OpenAI) -> None:
    asked = "[[error 400 too_odd]]"
    made = client.responses.create(model="fake", input=asked, background=True)
    failed = ended(client, made.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.type) == ("server_error", "too_odd")
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(model="fake", input=asked)
    assert caught.value.code == "too_odd"


def test_a_batch_of_responses(client: openai.OpenAI, running: Plant) -> None:
    def line(name: str, **body: Any) -> dict[str, Any]:
        body = {"model": "fake", "input": name} | body
        return {"custom_id": name, "method": "POST", "url": "/v1/responses", "body": body}

    rows = [
        line("plain"),
        line("short", max_output_tokens=3),
        line("items", input=[{"role": "user", "content": "hello"}], metadata={"a": "b"}),
        line("bad", input="[[error 422 too_odd]]"),
    ]
    done = running.wait_batch(running.submit_batch(rows, endpoint="/v1/responses"))
    assert (done.status, done.request_counts.completed) == ("completed", 3)  # type: ignore[union-attr]
    results = running.results(done)
    bodies = {
        name: Response.model_validate(row["response"]["body"])
        for name, row in results.items()
        if row["response"]["status_code"] == 200
    }
    assert {name: body.status for name, body in bodies.items()} == {
        "plain": "completed", "short": "incomplete", "items": "completed",
    }  # fmt: skip
    assert len({body.id for body in bodies.values()}) == 3
    assert bodies["items"].metadata == {"a": "b"}
    alone = client.responses.create(model="fake", input="plain")
    assert bodies["plain"].output_text == alone.output_text
    assert results["bad"]["response"]["body"]["error"]["code"] == "too_odd"
    assert done.usage is not None
    assert done.usage.output_tokens == sum(
        body.usage.output_tokens for body in bodies.values() if body.usage
    )


def test_rows_cannot_go_on_from_a_response(client: openai.OpenAI, running: Plant) -> None:
    bodies: list[dict[str, Any]] = [
        {"previous_response_id": "resp_x"}, {"background": True}, {"stream": True}, {"tools": []},
    ]  # fmt: skip
    rows = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/responses",
         "body": {"model": "fake", "input": "x"} | body}
        for n, body in enumerate(bodies)
    ]  # fmt: skip
    batch = running.wait_batch(running.submit_batch(rows, endpoint="/v1/responses"))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(error.code, error.param) for error in batch.errors.data or []] == [
        ("unsupported_parameter", "previous_response_id"),
        ("unsupported_parameter", "background"),
        ("streaming_unsupported", "stream"),
        ("unsupported_parameter", "tools"),
    ]


# --- moderations ----------------------------------------------------------------------------------


def test_moderations_by_a_classifier_of_ones_own(client: openai.OpenAI) -> None:
    one = client.moderations.create(input=VIOLENT)
    assert (one.model, one.id.startswith("modr-")) == (GUARD, True)
    (found,) = one.results
    assert found.flagged
    assert found.categories.violence
    assert not found.categories.self_harm
    assert found.category_scores.violence > 0.9
    assert found.category_applied_input_types.violence == ["text"]
    assert found.category_applied_input_types.hate == []
    assert found.category_scores.hate == 0.0
    several = client.moderations.create(model=GUARD, input=[HARMLESS, SPAM, BOTH])
    assert [result.flagged for result in several.results] == [False, True, True]
    shown = several.results[1].categories.model_dump(by_alias=True)
    assert (shown["spam"], shown["violence"], "ok" in shown) == (True, False, False)
    parts = client.moderations.create(
        input=[{"type": "text", "text": "the quick"}, {"type": "text", "text": "brown fox"}]
    )
    assert len(parts.results) == 1


def test_a_batch_of_moderations(running: Plant) -> None:
    rows = [
        {"custom_id": name, "method": "POST", "url": "/v1/moderations", "body": {"input": text}}
        for name, text in [("bad", VIOLENT), ("good", HARMLESS)]
    ]
    rows.append({"custom_id": "named", "method": "POST", "url": "/v1/moderations",
                 "body": {"model": GUARD, "input": [SPAM, HARMLESS]}})  # fmt: skip
    done = running.wait_batch(running.submit_batch(rows, endpoint="/v1/moderations"))
    assert done.status == "completed", json.dumps(done.model_dump())
    bodies = {name: row["response"]["body"] for name, row in running.results(done).items()}
    flagged = {name: [r["flagged"] for r in body["results"]] for name, body in bodies.items()}
    assert flagged == {"bad": [True], "good": [False], "named": [True, False]}
    for body in bodies.values():
        assert body["model"] == GUARD
        openai.types.ModerationCreateResponse.model_validate(body)


# --- models ---------------------------------------------------------------------------------------


def test_models_whose_names_hold_colons_and_slashes(client: openai.OpenAI, running: Plant) -> None:
    assert GUARD in {model.id for model in client.models.list()}
    assert client.models.retrieve(GUARD).id == GUARD
    with running.http() as http:
        assert http.get("/v1/models/guards%2Ftiny%3A1").json()["id"] == GUARD
        assert http.delete("/v1/models/guards%2Fnone%3A1").status_code == 404
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete(GUARD)
