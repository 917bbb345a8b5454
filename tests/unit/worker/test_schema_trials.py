"""Schemas that pass all that is looked at before, and take more than anybody should give."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from shared.errors import InvalidSchema
from shared.specs.schemas import check_schema
from worker.engines import schema_trial_child
from worker.engines.matchers import UnusableSchema
from worker.engines.schema_trials import SchemaTrials

PLAIN: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}


def written_tokenizer() -> str:
    """Of bytes, and an end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return str(tokenizer.to_str())


@pytest.fixture(name="trials")
def trials_fixture() -> Iterator[SchemaTrials]:
    trials = SchemaTrials(written_tokenizer(), [0])
    yield trials
    trials.rest()


def doubling() -> dict[str, Any]:
    """Each definition has the one before it twice, with something added: 2 to the 40th objects."""
    known: dict[str, Any] = {"a0": {"type": "object"}}
    for number in range(1, 40):
        before = {"$ref": f"#/$defs/a{number - 1}"}
        known[f"a{number}"] = {
            "type": "object",
            "properties": {
                name: {"allOf": [before, {"properties": {added: {"type": "integer"}}}]}
                for name, added in (("x", "q"), ("y", "r"))
            },
        }
    return {"$defs": known, "$ref": "#/$defs/a39"}


def dividing() -> dict[str, Any]:
    """An automaton of ten thousand states for each of many numbers."""
    numbers = {
        f"n{number}": {
            "type": "number",
            "multipleOf": 9_973 - number,
            "minimum": -(10**15),
            "maximum": 10**15,
        }
        for number in range(300)
    }
    return {"type": "object", "properties": numbers}


def test_what_takes_too_much_memory_ends_its_trial_alone(trials: SchemaTrials) -> None:
    check_schema(doubling(), "schema")  # nothing that is looked at before refuses it
    with pytest.raises(UnusableSchema, match=r"too (much memory|long)"):
        trials.run(json.dumps(doubling()))
    trials.run(json.dumps(PLAIN))


def test_what_takes_too_long_ends_its_trial_alone(trials: SchemaTrials) -> None:
    with pytest.raises(InvalidSchema, match="all 'multipleOf' together"):
        check_schema(dividing(), "schema")
    with pytest.raises(UnusableSchema, match="too long"):
        trials.run(json.dumps(dividing()))
    trials.run(json.dumps(PLAIN))


def test_what_is_no_use_is_said_and_costs_no_process(trials: SchemaTrials) -> None:
    trials.run(json.dumps(PLAIN))
    child = trials._child
    with pytest.raises(UnusableSchema, match=r"(?i)unsatisfiable"):
        trials.run(json.dumps({"type": "string", "minLength": 5, "maxLength": 2}))
    trials.run(json.dumps(PLAIN))
    assert trials._child is child


def test_a_process_that_somebody_ended_is_no_schemas_doing(trials: SchemaTrials) -> None:
    trials.run(json.dumps(PLAIN))
    assert trials._child is not None
    os.kill(trials._child.pid, signal.SIGKILL)
    trials._child.wait(60)
    trials.run(json.dumps(PLAIN))


def test_a_process_rests_and_is_started_anew(trials: SchemaTrials) -> None:
    trials.run(json.dumps(PLAIN))
    child = trials._child
    assert child is not None
    trials.rest()
    assert child.poll() is not None
    trials.run(json.dumps(PLAIN))


def test_limits_of_the_system_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever started the engine may have set less."""
    found: list[int] = []
    monkeypatch.setattr(schema_trial_child.resource, "getrlimit", lambda _: (-1, -1))
    monkeypatch.setattr(
        schema_trial_child.resource, "setrlimit", lambda _, limits: found.append(limits[0])
    )
    schema_trial_child._limit(0, 7)
    monkeypatch.setattr(schema_trial_child.resource, "getrlimit", lambda _: (-1, 5))
    schema_trial_child._limit(0, 7)
    assert found == [7, 5]
