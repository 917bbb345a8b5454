"""Text read along in the text engine: always a beginning of the result, whatever the scheduler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.integration.tiny_models import (
    COMPLETIONS,
    WORDS,
    chat,
    completion,
    load,
    make,
    row,
    small,
)
from tests.integration.tiny_models import tokenizer as byte_level
from worker.engines import slot_scheduler
from worker.engines.base import TellsText
from worker.engines.protocol import Row, RowResult
from worker.engines.sampling import seed_of
from worker.engines.spelling import Spellings
from worker.engines.text import TextEngine
from worker.engines.text_deltas import Deltas, longest_beginning
from worker.engines.text_rows import Choice, Room, TextRow, read_row
from worker.engines.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**small())
    return make(tmp_path_factory.mktemp("tiny llama"), LlamaForCausalLM, config)


@pytest.fixture(scope="module")
def engine(folder: Path) -> TextEngine:
    return eager(load(folder))


def eager(engine: TextEngine) -> TextEngine:
    """Tells its text after each step, instead of twenty times a second."""
    engine._deltas._pause_seconds = 0.0
    return engine


class Along:
    """Reads rows along, and checks each word as it comes."""

    def __init__(self, engine: TextEngine) -> None:
        self._engine = engine
        self.said: dict[tuple[int, int], str] = {}
        """By row and choice."""
        self.pieces_n = 0
        self.repeated = False
        self.results: dict[int, RowResult] = {}

    def run(self, rows: Sequence[Row]) -> dict[int, list[str]]:
        """The texts of the results by row, each of which began as was said."""
        for given_row in rows:
            assert self._engine.submit(1, 1, given_row) is None
        while self._engine.busy:
            ended = self._engine.step()
            self._hear()
            for result in ended:
                self._check(result)
        assert self._engine.deltas() == []
        return {index: texts(result) for index, result in self.results.items()}

    def _hear(self) -> None:
        for delta in self._engine.deltas():
            assert (delta.shard, delta.epoch) == (1, 1)
            assert delta.index not in self.results
            for piece in delta.pieces:
                self.pieces_n += 1
                assert piece.text
                said = self.said.get((delta.index, piece.choice), "")
                known = said[piece.at :][: len(piece.text)]
                self.repeated = self.repeated or bool(known)
                assert piece.at <= len(said)
                assert piece.text.startswith(known)
                self.said[delta.index, piece.choice] = said + piece.text[len(known) :]

    def _check(self, result: RowResult) -> None:
        self.results[result.index] = result
        for choice, text in enumerate(texts(result)):
            assert text.startswith(self.said.get((result.index, choice), ""))


def texts(result: RowResult) -> list[str]:
    choices = json.loads(result.body)["choices"]
    return [c["text"] if "text" in c else c["message"]["content"] for c in choices]


def streamed(given_row: Row) -> Row:
    body = json.loads(given_row.body) | {"stream": True}
    return Row(
        given_row.index, given_row.endpoint, json.dumps(body).encode(), f"job_x-{given_row.index}"
    )


ROWS = [
    completion(0, "the quick", max_tokens=40),
    chat(1, "seven rivers", max_tokens=90, temperature=0.9, seed=5, n=3),
    row(2, COMPLETIONS, {"prompt": ["日本語", WORDS[:40]], "n": 2, "seed": 8, "max_tokens": 30}),
    chat(3, "a", max_tokens=90, seed=3, presence_penalty=0.5, top_p=0.9),
    completion(4, "dog", max_tokens=1),
]


def test_it_tells_text(engine: TextEngine) -> None:
    assert isinstance(engine, TellsText)


def test_text_read_along_is_that_of_rows_that_are_not(engine: TextEngine) -> None:
    along = Along(engine)
    read = along.run([streamed(each) for each in ROWS])
    assert read == Along(engine).run(ROWS)
    assert along.pieces_n > 60
    longest = max(read[1], key=len)
    assert len(along.said[1, read[1].index(longest)]) > len(longest) * 0.8


def test_the_static_scheduler_tells_text_as_well(folder: Path) -> None:
    static = eager(load(folder, scheduler="static"))
    along = Along(static)
    assert along.run([streamed(each) for each in ROWS]) == Along(static).run(ROWS)
    assert along.pieces_n > 60


def test_nothing_is_told_of_rows_that_nobody_reads_along(engine: TextEngine) -> None:
    along = Along(engine)
    along.run([ROWS[0], streamed(ROWS[1])])
    assert {index for index, _ in along.said} == {1}


def test_a_stop_sequence_is_never_seen_and_neither_is_its_beginning(engine: TextEngine) -> None:
    [[whole]] = Along(engine).run([completion(0, WORDS[:70], max_tokens=60)]).values()
    for start in range(5, len(whole) - 8, 7):
        stops = [whole[start : start + 6], whole[start + 1 : start + 3] + "\x01"]
        body = {"max_tokens": 60, "stop": stops}
        [[text]] = Along(engine).run([streamed(completion(0, WORDS[:70], **body))]).values()
        assert text == whole[: whole.find(stops[0])]


def test_the_echo_is_counted_and_not_told(engine: TextEngine) -> None:
    prompt = "the quick"
    engine.submit(1, 1, streamed(completion(0, prompt, max_tokens=20, echo=True)))
    told, ended = [], []
    while engine.busy:
        ended += engine.step()
        told += [piece for delta in engine.deltas() for piece in delta.pieces]
    [text] = texts(ended[0])
    assert told[0].at == len(prompt)
    assert all(text[piece.at :].startswith(piece.text) for piece in told)


def test_a_row_that_starts_again_tells_its_text_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in the middle: readers compare, and go on where they were."""
    made = eager(load(folder, slots=2))
    want = Along(made).run([ROWS[0]])
    decode, steps = slot_scheduler.SlotScheduler._decode, 0

    def fails_once(self: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 20:
            raise MemoryError
        return decode(self)

    monkeypatch.setattr(slot_scheduler.SlotScheduler, "_decode", fails_once)
    monkeypatch.setattr(slot_scheduler, "is_out_of_memory", lambda e: isinstance(e, MemoryError))
    along = Along(made)
    rows = [streamed(ROWS[0]), streamed(completion(1, "dog", max_tokens=40))]
    assert along.run(rows)[0] == want[0]
    assert along.repeated


def test_an_unseeded_stream_says_the_same_on_every_attempt(engine: TextEngine) -> None:
    free = {"max_tokens": 12, "temperature": 1.0}
    first = Along(engine).run([streamed(completion(0, "the", **free))])
    assert Along(engine).run([streamed(completion(0, "the", **free))]) == first
    assert seed_of("job_a-0") != seed_of("job_b-0")
    assert 0 <= seed_of("job_a-0") < 2**63


def test_deltas_wait_for_their_time_and_come_together(engine: TextEngine) -> None:
    now = 0.0
    vocabulary = Vocabulary(byte_level(), set())
    deltas = Deltas(vocabulary, Spellings(vocabulary), clock=lambda: now, pause_seconds=1.0)
    written = text_row(vocabulary)
    deltas.add(written)
    tokens = vocabulary.encode("one two three")
    written.choices[0].generated += tokens[:4]
    assert len(deltas.take()) == 1
    written.choices[0].generated += tokens[4:]
    now = 0.9
    assert deltas.take() == []
    now = 1.0
    [delta] = deltas.take()
    assert delta.pieces[0].at + len(delta.pieces[0].text) == len("one two three")
    deltas.forget(written)
    now = 9.0
    assert deltas.take() == []


# --- characters ----------------------------------------------------------------------------------


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama's first: pieces with a mark for the space, and bytes for what they don't cover."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁a", "▁naïve", "▁", "b", "ve"]
    made = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>")
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def ids_of_bytes(text: str) -> list[int]:
    return [1 + byte for byte in text.encode()]


def text_row(vocabulary: Vocabulary, stops: Sequence[str] = ()) -> TextRow:
    body = {"model": "m", "prompt": "x", "stream": True, "max_tokens": 5_000, "stop": [*stops]}
    given_row = Row(0, COMPLETIONS, json.dumps(body).encode(), "job_x-0")
    return read_row(1, 1, given_row, vocabulary, Room(10_000, 100))


def say_in_bursts(vocabulary: Vocabulary, tokens: Sequence[int], bursts: Sequence[int]) -> str:
    """What is told of ``tokens`` that come in bursts of these sizes, over and over."""
    deltas = Deltas(vocabulary, Spellings(vocabulary), pause_seconds=0.0)
    written = text_row(vocabulary)
    deltas.add(written)
    choice: Choice = written.choices[0]
    said, turn = "", 0
    while len(choice.generated) < len(tokens):
        upto = len(choice.generated) + bursts[turn % len(bursts)]
        choice.generated += tokens[len(choice.generated) : upto]
        turn += 1
        for delta in deltas.take():
            for piece in delta.pieces:
                assert piece.at == len(said)
                said += piece.text
    return said


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("ab é日🎉\n▁\u0000👩‍👩‍👧"), min_size=1, max_size=120),
    bursts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_no_character_is_cut_and_none_is_lost(kind: str, text: str, bursts: list[int]) -> None:
    if kind == "byte_level":
        vocabulary = Vocabulary(byte_level(), set())
        tokens = [token for byte in text.encode() for token in _byte_token(vocabulary, byte)]
    else:
        vocabulary = Vocabulary(byte_fallback(), set())
        tokens = ids_of_bytes(text)
    assert say_in_bursts(vocabulary, tokens, bursts) == vocabulary.decode(tokens)


def _byte_token(vocabulary: Vocabulary, byte: int) -> list[int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [vocabulary._tokenizer.convert_tokens_to_ids(bytes_to_unicode()[byte])]


def test_spaces_before_words_survive_a_window_that_moves() -> None:
    vocabulary = Vocabulary(byte_fallback(), set())
    words = vocabulary._tokenizer.convert_tokens_to_ids(["▁a", "▁naïve", "b", "▁", "ve"])
    tokens = [*words, *ids_of_bytes("🎉é")] * 60
    whole = vocabulary.decode(tokens)
    assert not whole.startswith(" ")
    assert say_in_bursts(vocabulary, tokens, [1, 3, 7]) == whole


@pytest.mark.parametrize(
    ("text", "stops", "held"),
    [
        ("abc", [], 0),
        ("abc", ["cd"], 1),
        ("abc", ["bcd", "cd"], 2),
        ("aaa", ["aaab"], 3),
        ("abab", ["ababc", "abc"], 4),
        ("abc", ["x"], 0),
        ("", ["x"], 0),
        ("a\n", ["\n\n"], 1),
    ],
)
def test_what_may_begin_a_stop_sequence_is_held_back(
    text: str, stops: list[str], held: int
) -> None:
    assert longest_beginning(text, stops) == held
