"""Marks of tokens: what is kept of a step's logits, and of which rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch

from tests.integration.tiny_models import tokenizer
from worker.engines.likelihoods import IMPOSSIBLE, Marks, Telling, mark
from worker.engines.spelling import Spellings
from worker.engines.vocabulary import Vocabulary


@dataclass
class One:
    marks: Marks | None


class Untouchable:
    """Logits that nobody may look at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)

    def __getitem__(self, key: object) -> Any:
        raise AssertionError(key)


def test_rows_that_do_not_ask_cost_nothing() -> None:
    mark(cast(torch.Tensor, Untouchable()), [One(None), One(None)], [1, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_row_gets_as_many_as_it_asks_for(dtype: torch.dtype) -> None:
    """Of forty rows in any order, which are marked sixteen at a time."""
    torch.manual_seed(0)
    logits = torch.randn(40, 50).to(dtype)
    before = logits.clone()
    rows = [One(None if n % 3 == 0 else Marks(n % 5)) for n in range(40)]
    tokens = [(7 * n) % 50 for n in range(40)]
    mark(logits, rows, tokens)
    assert torch.equal(logits, before)
    wanted = logits.float().log_softmax(-1)
    for n, row in enumerate(rows):
        if row.marks is None:
            continue
        assert row.marks.chosen[0] == pytest.approx(float(wanted[n][tokens[n]]), abs=1e-5)
        best = row.marks.best(0)
        assert len(best) == n % 5
        assert [token for token, _ in best] == wanted[n].topk(n % 5).indices.tolist()
        for token, logprob in best:
            assert logprob == pytest.approx(float(wanted[n][token]), abs=1e-5)


def test_a_token_takes_eight_bytes_and_four_and_no_vocabulary() -> None:
    marks = Marks(20)
    for _ in range(1000):
        mark(torch.randn(1, 5000), [One(marks)], [3])
    held = (marks.chosen, marks._best_tokens, marks._best)
    assert sum(len(part) * part.itemsize for part in held) == 1000 * (4 + 20 * 8)


def test_more_than_the_vocabulary_has_are_as_many_as_it_has() -> None:
    marks = Marks(3)
    mark(torch.tensor([[0.0, 1.0, 2.0]]), [One(marks)], [0])
    assert [token for token, _ in marks.best(0)] == [2, 1, 0]


def test_what_is_impossible_is_a_number() -> None:
    words = tokenizer()
    [token] = words("a").input_ids
    logits = torch.zeros(1, 400)
    logits[0, token] = -math.inf
    for chat in (True, False):
        marks = Marks(400)
        mark(logits, [One(marks)], [token])
        telling = Telling(marks, Spellings(Vocabulary(words, [])), chat=chat, at=2)
        told = telling.whole("a", [token])
        if chat:
            [entry] = told["content"]
            assert entry["logprob"] == IMPOSSIBLE
            assert entry["top_logprobs"][-1] == {"token": "a", "bytes": [97], "logprob": IMPOSSIBLE}
        else:
            assert told["token_logprobs"] == [IMPOSSIBLE]
            assert told["text_offset"] == [2]


def test_bytes_that_are_no_text_are_written_out() -> None:
    words = tokenizer()
    tokens: list[int] = words("\U0001f6f8").input_ids
    assert len(tokens) > 1
    marks = Marks(0)
    for token in tokens:
        mark(torch.zeros(1, 400), [One(marks)], [token])
    spellings = Spellings(Vocabulary(words, []))
    chat = Telling(marks, spellings, chat=True, at=0).whole("\U0001f6f8", tokens)["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in chat) == "\U0001f6f8".encode()
    assert chat[0]["token"].startswith("\\xf0")
    flat = Telling(marks, spellings, chat=False, at=0).whole("\U0001f6f8", tokens)
    assert flat["tokens"] == ["bytes:" + entry["token"] for entry in chat]
    assert set(flat["text_offset"]) == {0}
