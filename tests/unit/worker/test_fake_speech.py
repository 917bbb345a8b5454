"""The fake engine's rows that are read along: words with the time, and half of what is held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.test_fake_engine import CHAT, COMPLETIONS, Clock, engine, error_of
from worker.engines.base import TellsText
from worker.engines.fake import FakeEngine
from worker.engines.protocol import Row, RowResult


def chat(text: str, **more: Any) -> Row:
    body = {"messages": [{"role": "user", "content": text}], "stream": True, **more}
    return Row(0, CHAT, json.dumps(body).encode())


def texts_of(result: RowResult) -> list[str]:
    choices = json.loads(result.body)["choices"]
    return [c["message"]["content"] if "message" in c else c["text"] for c in choices]


def heard(made: FakeEngine, told: dict[int, str]) -> int:
    """Adds what was told to each choice's text; how much it was."""
    count = 0
    for delta in made.deltas():
        for choice, at, text in [(p.choice, p.at, p.text) for p in delta.pieces]:
            assert at == len(told.setdefault(choice, ""))
            told[choice] += text
            count += 1
    return count


def test_it_tells_text() -> None:
    assert isinstance(engine(), TellsText)


def test_words_pass_with_the_time_and_the_last_comes_with_the_result() -> None:
    clock = Clock()
    made, told, times = engine(clock), {0: "", 1: ""}, 0
    assert made.submit(1, 1, chat("[[delay 5]]", n=2)) is None
    results: list[RowResult] = []
    while made.busy:
        times += heard(made, told) > 0
        results += made.step()
    assert times > 5
    for text, (choice, said) in zip(texts_of(results[0]), told.items(), strict=True):
        assert text.startswith(said), choice
        assert len(text.split()) - len(said.split()) == 1
    assert made.deltas() == []


@pytest.mark.parametrize("stream", [False, None])
def test_nothing_is_told_of_rows_that_nobody_reads_along(stream: bool | None) -> None:
    clock = Clock()
    made = engine(clock)
    made.submit(1, 1, chat("[[delay 5]]", stream=stream))
    clock.now += 3
    assert made.deltas() == []


def test_a_row_is_held_half_told_until_its_file_is_there(tmp_path: Path) -> None:
    made = engine(scratch=str(tmp_path))
    made.submit(1, 1, chat("[[hold here]]"))
    told: dict[int, str] = {}
    for _ in range(50):
        assert made.step() == []
        heard(made, told)
    assert (made.busy, made.active_rows, made.waiting_rows) == (True, 1, 0)
    (tmp_path / "hold-here").touch()
    [result] = made.step()
    [text] = texts_of(result)
    assert text.startswith(told[0])
    assert len(told[0].split()) == len(text.split()) // 2
    assert not made.busy


def test_the_echo_is_not_told_again() -> None:
    clock = Clock()
    made = engine(clock)
    body = {"prompt": ["one", "two [[delay 5]]"], "echo": True, "n": 2, "stream": True}
    made.submit(1, 1, Row(0, COMPLETIONS, json.dumps(body).encode()))
    clock.now += 3
    [delta] = made.deltas()
    assert [(p.choice, p.at) for p in delta.pieces] == [(0, 3), (1, 3), (2, 15), (3, 15)]
    assert all(piece.text.startswith(" ") for piece in delta.pieces)


def test_cancelled_rows_say_no_more(tmp_path: Path) -> None:
    clock = Clock()
    made = engine(clock, scratch=str(tmp_path))
    made.submit(1, 1, chat("[[delay 5]]"))
    made.submit(2, 1, chat("[[hold here]]"))
    made.cancel(1, 1)
    made.cancel(2, 1)
    clock.now += 3
    assert not made.busy
    assert made.deltas() == []


def test_holding_needs_a_folder() -> None:
    assert error_of(engine().submit(1, 1, chat("[[hold here]]"))) == (400, "bad_directive")
