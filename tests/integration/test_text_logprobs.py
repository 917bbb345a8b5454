"""How likely tokens were: what the text engine tells is what a bare forward pass says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from shared.specs.common import MOST_LOGPROBS
from tests.integration.tiny_models import (
    WORDS,
    body_of,
    chat,
    completion,
    load,
    make,
    run,
    small,
    texts,
    tokenizer,
)
from worker.engines import slot_scheduler, text, text_rows
from worker.engines.protocol import Row, RowDelta
from worker.engines.text import TextEngine
from worker.engines.text_rows import Room, TextRow

TOLERANCE = {"float32": 2e-4, "bfloat16": 0.15}
"""Of a logprob: logits of these models span some ten units, and a microbatch changes the order of
sums."""
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["yes", "no"]}},
    "required": ["a", "b"], "additionalProperties": False}}}  # fmt: skip
ASKED = {"logprobs": True, "top_logprobs": 4}
ROWS = [
    chat(0, "seven rivers", **ASKED, max_tokens=30, temperature=0.9, seed=5, n=2),
    completion(1, WORDS[:60], logprobs=3, max_tokens=12),
    completion(2, WORDS[:60] + " dog", logprobs=0, max_tokens=9, temperature=1.5, seed=2),
    completion(3, WORDS[:60] + " 日本", max_tokens=14),
    chat(4, "a", logprobs=True, max_tokens=25, seed=3, presence_penalty=0.8, top_p=0.7),
    chat(5, "as JSON", **ASKED, max_tokens=40, seed=8, response_format=SCHEMA),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**small())
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


@pytest.fixture(scope="module")
def engine(folder: Path) -> TextEngine:
    return load(folder)


@pytest.fixture
def read_rows(monkeypatch: pytest.MonkeyPatch) -> dict[int, TextRow]:
    """The rows in the engine, which know their tokens."""
    rows: dict[int, TextRow] = {}
    read = text_rows.read_row

    def noting(shard: int, epoch: int, given: Row, *more: Any) -> TextRow:
        rows[given.index] = read(shard, epoch, given, *more)
        return rows[given.index]

    monkeypatch.setattr(text, "read_row", noting)
    return rows


def told(body: dict[str, Any]) -> list[dict[str, Any] | None]:
    return [choice["logprobs"] for choice in body["choices"]]


def said(body: dict[str, Any]) -> list[str]:
    return [c["message"]["content"] if "message" in c else c["text"] for c in body["choices"]]


def distributions(model: Any, row_: TextRow, choice: int) -> torch.Tensor:
    """The logprobs of all tokens at each place of the choice, by one bare forward pass."""
    of = row_.choices[choice]
    ids = torch.tensor([[*of.prompt.tokens, *of.generated]])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
    found: torch.Tensor = logits.log_softmax(-1)[len(of.prompt.tokens) - 1 : -1]
    return found


@pytest.mark.parametrize(
    ("scheduler", "dtype"), [("auto", "float32"), ("static", "float32"), ("auto", "bfloat16")]
)
def test_logprobs_are_those_of_a_bare_forward_pass(
    folder: Path, read_rows: dict[int, TextRow], scheduler: str, dtype: str
) -> None:
    """In company, behind shared beginnings, with penalties, nucleus and schema: the model's own
    view, which none of these has changed."""
    made = load(folder, scheduler=scheduler, dtype=dtype, slots=6)
    bodies = run(made, ROWS)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    assert told(bodies[3]) == [None]
    for index in (0, 1, 2, 4, 5):
        for number, logprobs in enumerate(told(bodies[index])):
            assert logprobs is not None
            places = distributions(model, read_rows[index], number)
            check(logprobs, places, read_rows[index].choices[number].generated, TOLERANCE[dtype])


def check(logprobs: dict[str, Any], places: torch.Tensor, tokens: list[int], most: float) -> None:
    entries = logprobs["content"] if "content" in logprobs else flat(logprobs)
    words = tokenizer()  # the model may also say what the tokenizer has no text for
    spoken = [(place, token) for place, token in enumerate(tokens) if words.decode([token])]
    assert len(spoken) - 1 <= len(entries) <= len(spoken)  # the last may be half a character
    for entry, (place, token) in zip(entries, spoken, strict=False):
        assert entry["logprob"] == pytest.approx(float(places[place][token]), abs=most)
        best = [one["logprob"] for one in entry["top_logprobs"]]
        assert best == sorted(best, reverse=True)
        wanted = places[place].topk(len(best)).values.tolist()
        assert best == pytest.approx(wanted, abs=most)


def flat(logprobs: dict[str, Any]) -> list[dict[str, Any]]:
    """A completion's, as a chat has them; the picked one may be one too many."""
    assert len({len(part) for part in logprobs.values()}) == 1
    entries = []
    for own, beside in zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert own in beside.values()
        likely = [one for one in beside.values() if one > own]
        entries.append({"logprob": own, "top_logprobs": [{"logprob": one} for one in likely]})
    return entries


def test_a_chat_tells_as_many_of_the_likeliest_as_are_asked_for(engine: TextEngine) -> None:
    rows = [chat(n, "the fox", logprobs=True, top_logprobs=n, max_tokens=4) for n in (0, 1, 20)]
    for top, body in run(engine, rows).items():
        [logprobs] = told(body)
        assert logprobs is not None
        assert set(logprobs) == {"content", "refusal"}
        assert logprobs["refusal"] is None
        assert [len(entry["top_logprobs"]) for entry in logprobs["content"]] == (
            [top] * len(logprobs["content"])
        )
        assert logprobs["content"]
        for entry in logprobs["content"]:
            assert set(entry) == {"token", "bytes", "logprob", "top_logprobs"}
            assert entry["logprob"] <= 0


def test_a_completion_always_tells_the_picked_token(engine: TextEngine) -> None:
    prompt = "seven rivers"
    rows = [completion(n, prompt, logprobs=n, max_tokens=6, temperature=2, seed=9) for n in (0, 5)]
    for top, body in run(engine, rows).items():
        [logprobs] = told(body)
        assert logprobs is not None
        for token, own, beside in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        ):
            assert beside[token] == own
            assert max(1, top) <= len(beside) <= top + 1
        assert logprobs["text_offset"][0] == len(prompt)


def test_the_tokens_are_the_bytes_of_the_text(engine: TextEngine) -> None:
    """Also of characters in several tokens, and of one that was cut."""
    limits = range(1, 24)
    rows = [
        chat(n, "日本語 🎉", logprobs=True, max_tokens=n, seed=7, temperature=1.2) for n in limits
    ]
    for body in run(engine, rows).values():
        [logprobs], [content] = told(body), said(body)
        assert logprobs is not None
        raw = b"".join(bytes(entry["bytes"]) for entry in logprobs["content"])
        assert raw.decode(errors="replace").startswith(content)
        without = b"".join(bytes(entry["bytes"]) for entry in logprobs["content"][:-1])
        assert not without.decode(errors="replace").startswith(content)
        for entry in logprobs["content"]:
            spelled = bytes(entry["bytes"])
            if "\\x" not in entry["token"]:
                assert entry["token"].encode() == spelled


def test_only_tokens_that_have_a_part_in_the_text_are_told(engine: TextEngine) -> None:
    """Behind a stop sequence, or in it, there are none."""
    base, prompt = {"logprobs": 2, "max_tokens": 40}, WORDS[:70]
    [whole] = texts(run(engine, [completion(0, prompt, **base)])[0])
    stops = [whole[at : at + 3] for at in range(4, len(whole) - 4, 5)]
    rows = [completion(n, prompt, **base, stop=stop) for n, stop in enumerate(stops)]
    cut = 0
    for index, body in run(engine, rows).items():
        [logprobs], [left] = told(body), texts(body)
        assert left == whole[: whole.find(stops[index])]
        assert logprobs is not None
        cut += len(left) < len(whole)
        begins = [offset - len(prompt) for offset in logprobs["text_offset"]]
        assert all(0 <= begin < len(left) for begin in begins)
        assert begins == sorted(begins)
        assert bool(begins) == bool(left)
    assert cut > 3


def test_the_end_is_no_token_of_the_text(
    engine: TextEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tokenizer()
    asked = completion(0, "the quick", logprobs=1, max_tokens=8)
    [before] = told(run(engine, [asked])[0])
    assert before is not None
    tokens = words(texts(run(engine, [asked])[0])[0]).input_ids
    last = tokens[-1]
    monkeypatch.setattr(engine._vocabulary, "end_ids", frozenset({last}))
    body = run(engine, [asked])[0]
    [after] = told(body)
    assert after is not None
    assert body["choices"][0]["finish_reason"] == "stop"
    assert len(after["tokens"]) < body["usage"]["completion_tokens"]
    assert after["token_logprobs"] == before["token_logprobs"][: len(after["tokens"])]


def test_rows_that_start_again_tell_each_token_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load(folder, slots=2)
    asked = [
        completion(0, "dog", logprobs=1, max_tokens=15),
        chat(1, "a", **ASKED, max_tokens=15, seed=1),
    ]
    want = [told(body) for body in run(made, asked).values()]
    decode, steps = slot_scheduler.SlotScheduler._decode, 0

    def fails_once(self: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise MemoryError
        return decode(self)

    monkeypatch.setattr(slot_scheduler.SlotScheduler, "_decode", fails_once)
    monkeypatch.setattr(slot_scheduler, "is_out_of_memory", lambda e: isinstance(e, MemoryError))
    again = [told(body) for body in run(made, asked).values()]
    assert steps > 6
    assert names(again) == names(want)


def names(of: list[list[dict[str, Any] | None]]) -> Any:
    return sorted(
        [one["tokens"] if "tokens" in one else [entry["token"] for entry in one["content"]]]
        for [one] in of
        if one is not None
    )


def streaming(engine: TextEngine, given: Row) -> tuple[list[RowDelta], dict[str, Any]]:
    engine._deltas._pause_seconds = 0.0
    body = json.loads(given.body) | {"stream": True}
    assert engine.submit(1, 1, Row(0, given.endpoint, json.dumps(body).encode(), "job_x-0")) is None
    deltas: list[RowDelta] = []
    while True:
        results = engine.step()
        deltas += engine.deltas()
        if results:
            return deltas, body_of(results[0])


@pytest.mark.parametrize("number", [0, 1, 4, 5])
def test_pieces_of_a_stream_have_the_tokens_that_end_in_them(
    engine: TextEngine, number: int
) -> None:
    deltas, body = streaming(engine, ROWS[number])
    pieces = [piece for delta in deltas for piece in delta.pieces if piece.choice == 0]
    [whole, *_] = told(body)
    assert whole is not None
    count = 0
    for piece in pieces:
        assert piece.first == count
        assert piece.logprobs is not None
        for name, part in piece.logprobs.items():
            size = count + len(part or [])
            assert part == (whole[name] and whole[name][count:size])
        count += len(next(iter(piece.logprobs.values())))
        if "content" in whole:
            raw = b"".join(bytes(entry["bytes"]) for entry in whole["content"][:count])
            assert said(body)[0].startswith(raw.decode(errors="replace"))
    assert count > len(next(iter(whole.values()))) / 2


def test_a_stream_that_asks_for_none_has_none(engine: TextEngine) -> None:
    deltas, _ = streaming(engine, ROWS[3])
    assert deltas
    assert all(piece.logprobs is None for delta in deltas for piece in delta.pieces)


def test_an_answer_that_would_tell_too_much_is_refused(engine: TextEngine) -> None:
    """Also where the limit of its tokens is the engine's own."""
    engine._room = Room(MOST_LOGPROBS, MOST_LOGPROBS // 20)
    [result] = run(engine, [chat(0, "a", logprobs=True, top_logprobs=20)]).values()
    assert result["error"]["param"] == "top_logprobs"
    [result] = run(engine, [chat(0, "a", logprobs=True, n=16, max_tokens=20_000)]).values()
    assert result["error"]["param"] == "logprobs"


def test_nothing_that_is_told_is_beyond_json(folder: Path) -> None:
    made = load(folder)
    rows = [chat(0, "a", logprobs=True, top_logprobs=20, max_tokens=8)]
    [logprobs] = told(run(made, rows)[0])
    assert logprobs is not None
    numbers = [one["logprob"] for entry in logprobs["content"] for one in entry["top_logprobs"]]
    assert all(math.isfinite(number) for number in numbers)


def test_the_best_of_several_are_those_that_the_model_finds_likeliest(
    engine: TextEngine, read_rows: dict[int, TextRow]
) -> None:
    """Of each prompt; all that were generated are counted."""
    asked = {"max_tokens": 9, "temperature": 1.2, "seed": 4}
    body = run(
        engine, [completion(0, ["the quick", "seven"], best_of=5, n=2, logprobs=0, **asked)]
    )[0]
    choices = read_rows[0].choices
    assert len(choices) == 10
    wanted = []
    for own in (choices[:5], choices[5:]):
        means = {c.index: sum(c.marks.chosen) / len(c.generated) for c in own if c.marks}
        assert len(set(means.values())) == 5
        wanted += sorted(means, key=means.__getitem__, reverse=True)[:2]
    assert texts(body) == [choices[index].text for index in wanted]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["completion_tokens"] == sum(len(c.generated) for c in choices)
    alone = run(engine, [completion(0, ["the quick", "seven"], n=5, **asked)])[0]
    assert texts(body) == [texts(alone)[index] for index in wanted]
    quiet = run(engine, [completion(0, "seven", best_of=3, **asked)])[0]
    assert told(quiet) == [None]


@pytest.fixture(autouse=True)
def _as_before(engine: TextEngine) -> Iterator[None]:
    pause, room = engine._deltas._pause_seconds, engine._room
    yield
    engine._deltas._pause_seconds, engine._room = pause, room
