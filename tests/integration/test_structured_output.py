"""Answers held to a schema, on tiny random models in fp32: the masks do all of the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from shared.specs.formats import UNFINISHED
from tests.integration.adapter_case import adapted, make_adapter
from tests.integration.tiny_models import body_of, chat, completion, finish, load, make, run, small
from worker.engines import grammars, turns
from worker.engines.base import Engine
from worker.engines.protocol import Row

AD = {
    "type": "object",
    "properties": {
        "headline": {"type": "string", "maxLength": 12},
        "tone": {"enum": ["warm", "dry"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["headline", "tone", "tags", "stars"],
    "additionalProperties": False,
}
CHOICE = {"type": "string", "enum": ["yes", "no, never"]}


def held(index: int, text: str, schema: dict[str, Any], **more: Any) -> Row:
    named = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    return chat(index, text, **{"response_format": named, "max_tokens": 120, **more})


def said(body: dict[str, Any]) -> list[str]:
    return [choice["message"]["content"] for choice in body["choices"]]


def satisfies(body: dict[str, Any], schema: dict[str, Any]) -> None:
    for choice in body["choices"]:
        assert choice["finish_reason"] == "stop", choice
        assert choice["message"]["refusal"] is None
        jsonschema_rs.validate(schema, json.loads(choice["message"]["content"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**small())
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load(folder)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    config = MistralConfig(**small(sliding_window=16))
    return load(make(tmp_path_factory.mktemp("tiny mistral"), MistralForCausalLM, config))


def test_every_kind_of_sampling_satisfies_the_schema(engine: Engine) -> None:
    asked: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 2.0, "seed": 3},
        {"temperature": 1.0, "top_p": 0.5, "n": 3},
        {"temperature": 0, "frequency_penalty": 2.0, "presence_penalty": 2.0},
        {"temperature": 1.5, "frequency_penalty": -2.0},
    ]
    bodies = run(engine, [held(i, "an ad", AD, **more) for i, more in enumerate(asked)])
    for index in range(len(asked)):
        satisfies(bodies[index], AD)
    assert len(said(bodies[2])) == 3


def test_a_text_is_the_same_alone_and_in_company(engine: Engine) -> None:
    def one() -> Row:
        return held(0, "the quick", AD, temperature=0.9, seed=7, n=2)

    alone = said(run(engine, [one()])[0])
    others = [held(1, "seven rivers", CHOICE), completion(2, "a", max_tokens=30)]
    assert said(run(engine, [*others, held(3, "dog", {"type": "object"}), one()])[0]) == alone
    assert alone[0] != alone[1]


def test_rows_without_a_schema_are_left_alone(engine: Engine) -> None:
    plain = completion(0, "the quick", max_tokens=12)
    alone = run(engine, [plain])[0]["choices"]
    company = [held(i, "dog", AD, temperature=0) for i in (1, 2)]
    assert run(engine, [plain, *company])[0]["choices"] == alone


def test_json_mode_gives_an_object(engine: Engine) -> None:
    asked = {"response_format": {"type": "json_object"}, "max_tokens": 150, "temperature": 0}
    rows = [chat(i, "anything", **asked, frequency_penalty=2.0) for i in range(2)]
    for body in run(engine, rows).values():
        [text] = said(body)
        if body["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(text), dict)
        else:
            assert text.startswith("{")
            assert body["choices"][0]["message"]["refusal"] == UNFINISHED


def test_the_end_comes_when_the_grammar_accepts_and_not_before(engine: Engine) -> None:
    body = run(engine, [held(0, "say", CHOICE, temperature=2.0, n=16, seed=1)])[0]
    assert set(said(body)) == {'"yes"', '"no, never"'}
    satisfies(body, CHOICE)


def test_a_cut_answer_says_that_it_is_unfinished(engine: Engine) -> None:
    body = run(engine, [held(0, "an ad", AD, max_tokens=5)])[0]
    [choice] = body["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["refusal"] == UNFINISHED
    assert choice["message"]["content"].startswith('{"')
    assert body["usage"]["completion_tokens"] == 5


def test_a_stop_sequence_may_spoil_an_answer_and_is_named(engine: Engine) -> None:
    [choice] = run(engine, [held(0, "an ad", AD, stop='"tone"')])[0]["choices"]
    assert choice["finish_reason"] == "stop"
    assert '"tone"' not in choice["message"]["content"]
    assert "not a whole JSON text" in choice["message"]["refusal"]


def test_what_the_grammar_cannot_promise_is_checked(engine: Engine) -> None:
    """``oneOf`` is generated as ``anyOf``: an answer that fits both is found out."""
    schema = {"oneOf": [{"type": "integer", "enum": [1]}, {"type": "number", "const": 1}]}
    [choice] = run(engine, [held(0, "one", schema)])[0]["choices"]
    assert choice["message"]["content"] == "1"
    assert "does not satisfy its schema" in choice["message"]["refusal"]


def test_static_microbatches_are_held_too(static: Engine) -> None:
    assert static.detail["scheduler"] == "static"
    rows = [held(i, "an ad", AD, temperature=1.0, seed=i) for i in range(3)]
    bodies = run(static, [*rows, held(3, "say", CHOICE, temperature=0)])
    for index in range(3):
        satisfies(bodies[index], AD)
    satisfies(bodies[3], CHOICE)


def test_continuous_batching_leaves_them_to_the_slots(folder: Path) -> None:
    engine = load(folder, scheduler="continuous", kv_cache_bytes=2**20)
    lanes: list[str] = []
    original = turns.Turns.add

    def noted(self: turns.Turns, choices: Any) -> None:
        lanes.extend(self._lane_of(choice) for choice in choices)
        original(self, choices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns.Turns, "add", noted)
        body = run(engine, [held(0, "an ad", AD, temperature=0)])[0]
    engine.close()
    satisfies(body, AD)
    assert lanes == ["exact"]


def test_an_adapter_writes_what_the_schema_asks(folder: Path, tmp_path: Path) -> None:
    adapter = make_adapter(folder, tmp_path / "writer", 5)
    engine = load(folder)
    given = held(0, "an ad", AD, temperature=0)
    tuned = adapted(held(1, "an ad", AD, temperature=0), adapter, "writer")
    bodies = run(engine, [given, tuned])
    satisfies(bodies[0], AD)
    satisfies(bodies[1], AD)
    assert bodies[1]["model"] == "writer"


def test_a_schema_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(folder)
    compiled: list[str] = []
    original = grammars.Compiler.compile

    def counting(self: grammars.Compiler, schema: str) -> Any:
        compiled.append(schema)
        return original(self, schema)

    monkeypatch.setattr(grammars.Compiler, "compile", counting)
    rows = [held(i, "an ad", AD) for i in range(6)]
    rows.append(held(6, "an ad", {"title": "An ad", **AD}))
    run(engine, rows)
    run(engine, rows[:2])
    assert len(compiled) == 1


NASTY: dict[str, dict[str, Any]] = {
    "a product of alternatives": {
        "allOf": [
            {"anyOf": [{"type": "object", "properties": {f"{i}{j}": {}}} for j in range(4)]}
            for i in range(10)
        ]
    },
    "a large automaton": {"type": "string", "pattern": "^.*a.{200}$"},
    "too many optional members": {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(900)},
    },
    "itself": {"$ref": "#"},
    "a circle": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "itself and more": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]}},
    },
    "an automaton for division": {"type": "integer", "multipleOf": 987654321},
    "nothing": {"type": "string", "minLength": 5, "maxLength": 2},
    "a member that can't be": {
        "type": "object",
        "properties": {"a": False},
        "required": ["a"],
    },
    "a look ahead": {"type": "string", "pattern": "(?=a)b"},
    "an intersection": {
        "allOf": [{"type": "string", "pattern": f"a.{{{i}}}b"} for i in range(2, 20)]
    },
}


def test_nasty_schemas_cost_their_rows_and_nobody_else(engine: Engine) -> None:
    """Each is refused with a reason, or answered within its limit of tokens."""
    rows = [
        held(i, "x", schema, max_tokens=60, temperature=2.0, seed=i)
        for i, schema in enumerate(NASTY.values())
    ]
    beside = held(len(rows), "an ad", AD, temperature=0)
    bodies = run(engine, [*rows, beside])
    satisfies(bodies.pop(beside.index), AD)
    refused = {name for i, name in enumerate(NASTY) if "error" in bodies[i]}
    for index, name in enumerate(NASTY):
        if name in refused:
            error = bodies[index]["error"]
            assert error["code"] == "invalid_schema"
            assert error["param"] in {"response_format", "response_format.json_schema.schema"}
            assert len(error["message"]) > len("answers can't be held to this schema: ")
    assert refused >= set(NASTY) - {"a large automaton", "too many optional members"}


def test_a_grammar_that_can_not_go_on_fails_its_row_alone(engine: Any) -> None:
    engine.submit(1, 1, held(0, "the", {"type": "object"}, max_tokens=40))
    (broken,) = (row.choices[0] for row in engine._rows)
    while broken.constraint is None:
        assert engine.step() == []
    broken.constraint.matcher.consume_token(engine._vocabulary.encode("the")[0])
    assert broken.constraint.failure
    results = finish(engine)
    assert [result.status for result in results] == [400]
    assert body_of(results[0])["error"]["code"] == "invalid_schema"


def test_a_cancelled_row_does_not_come_back_with_its_grammar(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(folder)
    monkeypatch.setattr(engine._schemas, "_get", lambda schema: None)
    engine.submit(1, 1, held(0, "an ad", AD))
    engine.submit(2, 1, completion(0, "dog", max_tokens=2))
    while engine.waiting_rows > 1 or engine.active_rows:
        engine.step()
    assert (engine.busy, engine.waiting_rows) == (True, 1)
    engine.cancel(1, 1)
    assert (engine.busy, engine.waiting_rows) == (False, 0)


def test_out_of_memory_begins_the_grammar_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(folder)
    expected = said(run(engine, [held(0, "an ad", AD, temperature=0)])[0])
    engine.submit(1, 1, held(0, "an ad", AD, temperature=0))
    engine.submit(1, 1, held(1, "another", AD, temperature=0))
    while engine.active_rows < 2:
        engine.step()
    for _ in range(3):
        engine.step()
    engine._scheduler._retreat("as if out of memory")  # type: ignore[attr-defined]
    assert said(body_of(next(r for r in finish(engine) if r.index == 0))) == expected
