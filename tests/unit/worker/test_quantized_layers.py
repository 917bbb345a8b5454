"""Linear layers in whole numbers: what they compute, and the folders that hold them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from worker.engines.quantized import (
    FEW_ROWS,
    FILE,
    BadQuantization,
    QuantizedLinear,
    Scheme,
    group_of,
    packed,
    quantized,
    read_quantization,
    unpacked,
)

INPUTS, OUTPUTS = 64, 32
NEAR = {"int8": 0.02, "int4": 0.15}
"""By how much products may differ, as a part of their size."""


def a_layer(*, bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(INPUTS, OUTPUTS, bias=bias, dtype=dtype)


def whole(layer: nn.Module, scheme: Scheme) -> QuantizedLinear:
    made = quantized(layer, scheme)
    assert made is not None
    return made


def difference(layer: nn.Module, made: nn.Module, rows: torch.Tensor) -> float:
    with torch.no_grad():
        wanted, found = layer(rows).float(), made(rows).float()
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("ready", [False, True])
def test_it_computes_what_the_layer_does(scheme: Scheme, dtype: torch.dtype, ready: bool) -> None:
    layer = a_layer(dtype=dtype)
    made = whole(layer, scheme)
    before = made.weight_bytes
    if ready:
        made.ready()
    for rows in (1, FEW_ROWS, FEW_ROWS + 1, 40):
        given = torch.randn(2, rows, INPUTS, dtype=dtype)
        assert difference(layer, made, given) < NEAR[scheme]
    assert made.weight_bytes <= before
    numbers = INPUTS * OUTPUTS // (2 if scheme == "int4" else 1)
    small = 4 * (OUTPUTS * (2 * INPUTS // 32 + 1)) + 4 * OUTPUTS
    assert numbers < before <= numbers + small


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_the_other_kind_of_linear_layer(scheme: Scheme) -> None:
    torch.manual_seed(4)
    layer = Conv1D(OUTPUTS, INPUTS)
    assert difference(layer, whole(layer, scheme), torch.randn(5, INPUTS)) < NEAR[scheme]


def test_the_dense_weights_are_the_nearest_numbers() -> None:
    layer = a_layer(bias=False)
    made = whole(layer, "int8")
    step = made.scale[:, None]
    assert bool(((made.dense(torch.float32) - layer.weight.detach()).abs() <= step * 0.501).all())


def test_a_row_of_zeros_stays_one() -> None:
    layer = a_layer(bias=False)
    with torch.no_grad():
        layer.weight[0] = 0
    for scheme in ("int8", "int4"):
        made = whole(layer, scheme)  # type: ignore[arg-type]
        assert made(torch.ones(1, INPUTS))[0, 0] == 0


def test_what_can_not_be_grouped_stays_as_it_is() -> None:
    assert [group_of(size) for size in (256, 192, 96, 40)] == [128, 64, 32, None]
    assert quantized(nn.Linear(40, 8), "int4") is None
    assert quantized(nn.Linear(40, 8), "int8") is not None


def test_two_numbers_a_byte() -> None:
    numbers = torch.arange(32, dtype=torch.uint8).view(2, 16) % 16
    assert packed(numbers).shape == (2, 8)
    assert torch.equal(unpacked(packed(numbers)), numbers)


@pytest.mark.parametrize(
    "said",
    [
        "no JSON",
        json.dumps([1]),
        json.dumps({"scheme": "int8", "layers": {}, "format": "another"}),
        json.dumps({"scheme": "int3", "layers": {}, "format": "pressrun-weight-only-1"}),
        json.dumps({"scheme": "int8", "layers": {"a": 0}, "format": "pressrun-weight-only-1"}),
    ],
)
def test_a_folder_that_says_something_else(tmp_path: Path, said: str) -> None:
    (tmp_path / FILE).write_text(said)
    with pytest.raises(BadQuantization):
        read_quantization(str(tmp_path))


def test_a_model_that_is_not_quantised(tmp_path: Path) -> None:
    assert read_quantization(str(tmp_path)) is None
    assert read_quantization("somebody/model") is None
