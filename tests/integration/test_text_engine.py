"""The text engine in flight, on a tiny random model in fp32."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.integration.tiny_models import (
    VOCABULARY,
    WORDS,
    body_of,
    chat,
    completion,
    finish,
    generated,
    load,
    make,
    row,
    run,
    say,
    small,
    texts,
    tokenizer,
)
from worker.engines import slot_scheduler
from worker.engines.base import Engine, EngineFailed
from worker.engines.forward import Forward

PROMPTS = [
    "the quick",
    "seven rivers carry old boats to the sea",
    "a",
    WORDS[:70],
    "日本語 🎉",
    "dog",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**small())
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load(folder)


def prompt_of_tokens(count: int) -> str:
    words = tokenizer()
    ids = words(WORDS * 20).input_ids[:count]
    text = say(ids)
    assert len(words(text).input_ids) == count
    return text


def test_a_llama_runs_in_flight(engine: Engine) -> None:
    assert engine.detail["scheduler"] == "in_flight"


def test_greedy_rows_that_join_and_leave_say_what_generate_says(
    engine: Engine, folder: Path
) -> None:
    """Nine rows over four slots, each of its own prompt and output length."""
    limits = [5, 31, 1, 12, 40, 3, 18, 25, 7]
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(limits))]
    rows = [
        completion(i, p, max_tokens=n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))
    ]
    bodies = run(engine, rows)
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        assert texts(bodies[i]) == [generated(folder, prompt, limit)]
        usage = bodies[i]["usage"]
        assert usage["prompt_tokens"] == len(tokenizer()(prompt).input_ids)
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("chosen", [{}, {"scheduler": "static"}])
def test_a_token_that_the_model_does_not_know_is_refused(
    folder: Path, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    more = tokenizer()
    more.add_tokens([f"<extra {number}>" for number in range(VOCABULARY)])
    more.save_pretrained(tmp_path / "model")
    last = f"<extra {VOCABULARY - 1}>"
    engine = load(tmp_path / "model", **chosen)

    for given, param in ((completion(0, f"the {last}"), "prompt"), (chat(0, last), "messages")):
        refused = engine.submit(1, 1, given)
        assert refused is not None
        assert (refused.status, body_of(refused)["error"]["param"]) == (400, param)
    assert not engine.busy
    assert texts(run(engine, [completion(0, "the quick", max_tokens=3)])[0])


def test_a_row_may_join_while_others_run(engine: Engine, folder: Path) -> None:
    engine.submit(1, 1, completion(0, "the quick", max_tokens=20))
    for _ in range(5):
        assert engine.step() == []
    engine.submit(2, 7, completion(0, "seven rivers", max_tokens=4))
    results = finish(engine)
    assert [(result.shard, result.epoch) for result in results] == [(2, 7), (1, 1)]
    assert texts(body_of(results[0])) == [generated(folder, "seven rivers", 4)]
    assert texts(body_of(results[1])) == [generated(folder, "the quick", 20)]


def test_a_shared_beginning_is_prefilled_once_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefilled: list[int] = []
    original = Forward.prefill

    def counting(self: Forward, prompts: Any, *more: Any) -> Any:
        prefilled.append(sum(map(len, prompts)))
        return original(self, prompts, *more)

    engine = load(folder)
    monkeypatch.setattr(Forward, "prefill", counting)
    prompts = [WORDS[:100] + end for end in (" the fox", " seven", " boats to the sea", " dog")]
    bodies = run(engine, [completion(i, p, max_tokens=8) for i, p in enumerate(prompts)])
    for i, prompt in enumerate(prompts):
        assert texts(bodies[i]) == [generated(folder, prompt, 8)]
    assert sum(prefilled) < sum(len(tokenizer()(p).input_ids) for p in prompts) / 2


def test_a_long_prompt_is_prefilled_in_several_steps(folder: Path) -> None:
    engine = load(folder, prefill_tokens=64)
    prompt = prompt_of_tokens(150)
    engine.submit(1, 1, completion(0, prompt, max_tokens=1))
    assert [engine.step(), engine.step()] == [[], []]
    assert texts(body_of(finish(engine)[0])) == [generated(folder, prompt, 1)]


def test_a_seed_gives_the_same_text_in_any_company(folder: Path, engine: Engine) -> None:
    def seeded() -> Any:
        return completion(0, "the quick", max_tokens=24, temperature=0.9, top_p=0.95, seed=-5, n=2)

    alone = texts(run(engine, [seeded()])[0])
    company = [completion(i, PROMPTS[i], max_tokens=30, temperature=1) for i in range(1, 6)]
    assert texts(run(engine, [*company, seeded()])[0]) == alone
    assert alone[0] != alone[1]
    assert texts(run(load(folder, slots=1), [seeded()])[0]) == alone


def test_rows_without_a_seed_differ(engine: Engine) -> None:
    rows = [completion(i, "the quick", max_tokens=24, temperature=1) for i in range(2)]
    bodies = run(engine, rows)
    assert texts(bodies[0]) != texts(bodies[1])


def test_choices_and_prompts_are_indexed_as_openai_does(engine: Engine) -> None:
    body = run(
        engine,
        [completion(0, ["the", "seven"], max_tokens=2, n=3, echo=True, temperature=1)],
    )[0]
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    beginnings = [choice["text"].startswith("the") for choice in body["choices"]]
    assert beginnings == [True] * 3 + [False] * 3
    assert body["usage"]["completion_tokens"] == 12
    assert body["object"] == "text_completion"
    assert body["system_fingerprint"].startswith("fp_")


def test_a_stop_sequence_ends_the_text_before_it(engine: Engine, folder: Path) -> None:
    whole = generated(folder, "the quick", 30)
    stop = whole[6:9]
    body = run(engine, [completion(0, "the quick", max_tokens=30, stop=["never said", stop])])[0]
    assert texts(body) == [whole[: whole.index(stop)]]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] < 30


def test_penalties_make_a_repeating_row_stop_repeating(engine: Engine) -> None:
    plain = run(engine, [completion(0, "a", max_tokens=40)])[0]
    varied = run(
        engine, [completion(0, "a", max_tokens=40, frequency_penalty=2.0, presence_penalty=2.0)]
    )[0]
    words = tokenizer()

    def distinct(body: dict[str, Any]) -> int:
        return len(set(words(texts(body)[0]).input_ids))

    assert distinct(varied) > distinct(plain)


def test_a_chat_answer_has_openais_shape_and_the_default_limit(engine: Engine) -> None:
    body = run(engine, [chat(0, "seven rivers", temperature=0)])[0]
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == "tiny"
    choice = body["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 20


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers(engine: Engine) -> None:
    error = run(engine, [completion(0, WORDS * 10, max_tokens=1)])[0]["error"]
    tokens = len(tokenizer()(WORDS * 10).input_ids)
    assert error["code"] == "context_length_exceeded"
    assert "256" in error["message"]
    assert str(tokens) in error["message"]
    assert not engine.busy


def test_a_limit_that_does_not_fit_is_refused_but_the_default_is_cut(engine: Engine) -> None:
    prompt, room = prompt_of_tokens(247), 9
    refused = run(engine, [completion(0, prompt, max_tokens=room + 1)])[0]["error"]
    assert (refused["code"], refused["param"]) == ("context_length_exceeded", "max_tokens")
    for given in (completion(0, prompt, max_tokens=room), completion(0, prompt, stop="zzz")):
        served = run(engine, [given])[0]
        assert served["usage"]["completion_tokens"] <= room


def test_a_cancelled_shard_frees_its_slots_before_the_next_step(
    engine: Engine, folder: Path
) -> None:
    for index in range(6):
        engine.submit(1, 1, completion(index, PROMPTS[index], max_tokens=50))
    engine.submit(2, 1, completion(0, "dog", max_tokens=6))
    for _ in range(3):
        engine.step()
    assert engine.active_rows == 4
    engine.cancel(1, 1)
    assert (engine.active_rows, engine.waiting_rows) == (0, 1)
    results = finish(engine)
    assert [result.shard for result in results] == [2]
    assert texts(body_of(results[0])) == [generated(folder, "dog", 6)]


def test_an_error_other_than_memory_condemns_the_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(folder)

    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(slot_scheduler, "pick", broken)
    engine.submit(1, 1, completion(0, "dog"))
    with pytest.raises(RuntimeError, match="device-side"):
        engine.step()


def test_another_endpoint_is_refused(engine: Engine) -> None:
    refused = engine.submit(1, 1, row(0, "/v1/embeddings", {"input": "dog"}))
    assert refused is not None
    assert refused.status == 400


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"slotz": 3}, "slotz"), ({"dtype": "int8"}, "dtype"), ({"slots": 0}, "slots")],
)
def test_a_bad_setting_stops_the_load_with_its_name(
    folder: Path, settings: dict[str, Any], word: str
) -> None:
    with pytest.raises(EngineFailed, match=word) as failed:
        load(folder, **settings)
    assert failed.value.code == "bad_settings"


def test_a_model_without_safetensors_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "no weights"
    broken.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (broken / file.name).write_bytes(file.read_bytes())
    with pytest.raises(EngineFailed) as failed:
        load(broken)
    assert failed.value.code == "model_load_failed"


def test_the_fingerprint_tells_weights_and_dtypes_apart(folder: Path, tmp_path: Path) -> None:
    other = load(make(tmp_path / "other", LlamaForCausalLM, LlamaConfig(**small(hidden_size=48))))
    marks = [load(folder), load(folder), load(folder, dtype="bfloat16"), other]
    prints = [engine.detail["system_fingerprint"] for engine in marks]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
