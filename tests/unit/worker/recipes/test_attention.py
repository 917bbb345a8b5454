"""When a training leaves torch's fused attention: the same numbers, by the quicker way."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from worker.recipes.attention import SHORT, computing, is_short


def context(dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Any:
    return SimpleNamespace(device=torch.device(device), dtype=dtype, autocast=nullcontext)


@pytest.mark.parametrize(
    ("given", "positions", "short"),
    [
        (context(), SHORT, True),
        (context(), SHORT + 1, False),
        (context(torch.float32), SHORT, False),
        (context(device="cuda"), SHORT, False),
    ],
)
def test_only_short_lines_in_bf16_on_a_cpu(given: Any, positions: int, short: bool) -> None:
    assert is_short(given, positions) is short
    with torch.no_grad():  # without a way back the fused one is as quick
        assert not is_short(given, positions)


def test_the_choice_ends_with_the_pass() -> None:
    with computing(context(), SHORT):
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    with computing(context(), SHORT + 1):
        assert torch.backends.cuda.flash_sdp_enabled()


def test_gradients_are_the_same_but_for_rounding() -> None:
    torch.manual_seed(1)
    found = []
    given = torch.randn(3, 2, 4, 24, 16)
    mask = torch.ones(24, 24, dtype=torch.bool).tril()
    for positions in (SHORT, SHORT + 1):
        leaf = given.to(torch.bfloat16).requires_grad_()
        with computing(context(), positions):
            scaled_dot_product_attention(*leaf.unbind(), attn_mask=mask).square().sum().backward()
        assert leaf.grad is not None
        found.append(leaf.grad.float())
    apart = (found[0] - found[1]).abs().max() / found[1].abs().max()
    assert 0 <= apart < 0.02
