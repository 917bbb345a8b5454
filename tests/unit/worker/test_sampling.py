"""Picking tokens: truthful distributions, own streams, OpenAI's penalties."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from worker.engines.sampling import Sampling, Stream, draw, pick


@dataclass
class Row:
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    choice: int = 0
    generated: list[int] = field(default_factory=list)
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = Stream(self.seed, self.choice)


def grid(count: int) -> Tensor:
    """Evenly spread uniforms: the shares of what they draw are the probabilities."""
    return ((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None]


def shares(probabilities: Tensor, top_p: float, count: int = 4000) -> Tensor:
    rows = probabilities.expand(count, -1).contiguous()
    drawn = draw(rows, grid(count), torch.full((count, 1), top_p, dtype=torch.float64))
    return torch.bincount(drawn, minlength=probabilities.shape[0]) / count


@pytest.mark.parametrize("size", [3, 256, 700, 1024])
def test_draws_follow_the_distribution(size: int) -> None:
    torch.manual_seed(3)
    probabilities = torch.softmax(3 * torch.randn(size), dim=0)
    assert (shares(probabilities, 1.0) - probabilities).abs().max() <= 2 / 4000


def test_the_nucleus_is_the_shortest_head_that_reaches_top_p() -> None:
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    expected = torch.tensor([0.0, 0.4, 0.0, 0.3, 0.0]) / 0.7
    assert (shares(probabilities, 0.6) - expected).abs().max() <= 2 / 4000


def test_a_nucleus_wider_than_the_guess_is_whole() -> None:
    size = 2000
    expected = torch.full((size,), 1 / 1800)
    found = shares(torch.full((size,), 1 / size), 0.9, count=18000)
    assert int((found > 0).sum()) == 1800
    assert (found[found > 0] - expected[:1800]).abs().max() <= 2 / 18000


@pytest.mark.parametrize("top_p", [1.0, 0.999])
@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_edges_never_draw_an_impossible_token(uniform: float, top_p: float) -> None:
    probabilities = torch.zeros(1, 600)
    probabilities[0, [7, 300, 301]] = torch.tensor([0.25, 0.25, 0.5])
    u = torch.tensor([[uniform]], dtype=torch.float64)
    token = int(draw(probabilities, u, torch.tensor([[top_p]], dtype=torch.float64)))
    assert token in (7, 300, 301)


def test_streams_depend_on_seed_and_choice_alone() -> None:
    def numbers(seed: int, choice: int) -> list[float]:
        stream = Stream(seed, choice)
        return [stream.next() for _ in range(4)]

    assert numbers(-1, 0) == numbers(-1, 0)
    different = [numbers(1, 0), numbers(1, 1), numbers(-1, 0), numbers(2**63 - 1, 0)]
    assert len({tuple(row) for row in different}) == 4


def test_a_seeded_row_draws_the_same_among_others() -> None:
    torch.manual_seed(5)
    logits = torch.randn(6, 500)

    def draws(rows: list[int]) -> list[int]:
        company = [Row(Sampling(temperature=0.8, top_p=0.9), seed=r) for r in rows]
        return pick(logits[rows], company)

    together = draws([0, 1, 2, 3, 4, 5])
    assert [draws([r])[0] for r in range(6)] == together


def test_greedy_rows_take_the_best_and_consume_no_randomness() -> None:
    logits = torch.randn(3, 50)
    rows = [
        Row(Sampling(temperature=0)),
        Row(Sampling(temperature=1)),
        Row(Sampling(temperature=0)),
    ]
    before = logits.clone()
    tokens = pick(logits, rows)
    assert tokens[0] == int(logits[0].argmax())
    assert tokens[2] == int(logits[2].argmax())
    assert torch.equal(logits, before)
    assert rows[0].stream.next() == Stream(0, 0).next()


def test_penalties_follow_openais_rule() -> None:
    logits = torch.tensor([[3.0, 2.9, 1.0, 0.0]])
    seen_twice = Row(Sampling(temperature=0, frequency_penalty=0.4), generated=[0, 0, 1])
    assert pick(logits, [seen_twice]) == [1]
    present = Row(Sampling(temperature=0, presence_penalty=1.95), generated=[0, 0, 0, 1])
    assert pick(logits, [present]) == [0]
    encouraged = Row(Sampling(temperature=0, frequency_penalty=-2), generated=[2, 2])
    assert pick(logits, [encouraged]) == [2]


def test_temperature_flattens() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    for temperature in (0.5, 1.0, 2.0):
        expected = torch.softmax(logits[0] / temperature, 0)[0]
        rows = [Row(Sampling(temperature=temperature), seed=s) for s in range(3000)]
        share = np.mean([t == 0 for t in pick(logits.expand(3000, 2).contiguous(), rows)])
        assert abs(share - float(expected)) < 0.03


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_sampled_in_full(dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 49152, dtype=dtype)
    rows = [Row(Sampling(temperature=1.0), seed=s) for s in range(50)]
    tokens = [pick(logits, [row])[0] for row in rows]
    assert len(set(tokens)) > 45
    assert max(tokens) > 40000
