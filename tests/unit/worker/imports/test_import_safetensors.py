"""Files that call themselves safetensors."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any

import pytest
import torch
from safetensors.torch import save

from tests.unit.worker.imports.packages import header_of, tensor, weights
from worker.tuning.data.example import Refused
from worker.upkeep.imports.safetensors_files import MOST_HEADER_BYTES, read_tensors, verify

TERABYTE = 10**12
TWO = {"a": tensor([2, 2], 0, 16), "b": tensor([3], 16, 28)}


def code_of(data: bytes, size: int | None = None, chunk: int = 7) -> str:
    """What the file is refused as; ``chunk`` bytes come at a time."""
    chunks = (data[n : n + chunk] for n in range(0, len(data), chunk))
    with pytest.raises(Refused) as refused:
        verify(chunks, len(data) if size is None else size)
    return refused.value.code


@pytest.mark.parametrize("chunk", [1, 8, 9, 2**20])
def test_what_the_library_writes_is_taken(chunk: int) -> None:
    tensors = {
        "weight": torch.ones(3, 5, dtype=torch.bfloat16),
        "ids": torch.arange(7),
        "flags": torch.zeros(2, 2, dtype=torch.bool),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(1.0, dtype=torch.float64),
    }
    data = save(tensors, metadata={"format": "pt"})
    found = verify((data[n : n + chunk] for n in range(0, len(data), chunk)), len(data))
    assert {name: one.shape for name, one in found.items()} == {
        name: tuple(one.shape) for name, one in tensors.items()
    }
    assert found["weight"].dtype == "BF16"
    assert read_tensors(lambda start, end: data[start:end], len(data)) == found


def test_a_length_that_pickles_begin_with_too_is_a_length() -> None:
    spaces = 0x0280 - len(header_of({"a": tensor([2, 2], 0, 16)})) + 8
    text = header_of({"a": tensor([2, 2], 0, 16)})[8:] + b" " * spaces
    data = struct.pack("<Q", len(text)) + text + bytes(16)
    assert data[:2] == b"\x80\x02"
    assert list(verify([data], len(data))) == ["a"]


class Canary:
    """Pickled code: makes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_pickles_and_archives_are_named_as_such(tmp_path: Any) -> None:
    canary = tmp_path / "canary"
    for protocol in (2, 3, 4, 5):
        assert code_of(pickle.dumps(Canary(str(canary)), protocol)) == "pickle_refused"
    of_torch = io.BytesIO()
    torch.save({"a": Canary(str(canary))}, of_torch)
    assert code_of(of_torch.getvalue()) == "nested_archive"
    assert code_of(b"GGUF" + bytes(60)) == "not_safetensors"
    assert code_of(b"") == "not_safetensors"
    assert not canary.exists()


def test_a_zip_behind_the_tensors_or_within_the_last_one_is_refused() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr("data.pkl", b"x")
    inside = archive.getvalue()
    assert code_of(weights() + inside) == "polyglot_refused"
    hidden = header_of({"a": tensor([len(inside)], 0, len(inside), "U8")}) + inside
    assert zipfile.is_zipfile(io.BytesIO(hidden))
    assert code_of(hidden) == "polyglot_refused"
    commented = hidden[:-2] + struct.pack("<H", 5) + b"hello"
    longer = header_of({"a": tensor([len(inside) + 5], 0, len(inside) + 5, "U8")})
    assert code_of(longer + commented[-len(inside) - 5 :]) == "polyglot_refused"


@pytest.mark.parametrize(
    ("data", "size", "code"),
    [
        (struct.pack("<Q", 2**63) + b"{}", None, "safetensors_header"),
        (struct.pack("<Q", MOST_HEADER_BYTES + 1) + b"{}", 2**40, "safetensors_header"),
        (struct.pack("<Q", 400) + b"{}", None, "safetensors_length"),
        (header_of({"a": tensor([2**38], 0, 2**40)}), None, "safetensors_length"),
        (weights(), TERABYTE, "polyglot_refused"),
        (weights(), 40, "safetensors_length"),
        (weights(TWO, 28)[:-1], None, "safetensors_length"),
        (weights(TWO, 28)[:-1], len(weights(TWO, 28)), "safetensors_length"),
        (weights(TWO, 29), None, "polyglot_refused"),
    ],
)  # fmt: skip
def test_lengths_are_true(data: bytes, size: int | None, code: str) -> None:
    assert code_of(data, size) == code


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        ({"a": tensor([2, 2], 0, 16), "b": tensor([3], 8, 20)}, "safetensors_offsets"),
        ({"a": tensor([2, 2], 0, 16), "b": tensor([3], 18, 30)}, "safetensors_offsets"),
        ({"a": tensor([2, 2], 4, 20)}, "safetensors_offsets"),
        ({"a": {**tensor([4], 0, 16), "data_offsets": [0, 16, 20]}}, "safetensors_offsets"),
        ({"a": {**tensor([4], 0, 16), "data_offsets": [-16, 0]}}, "safetensors_offsets"),
        ({"a": tensor([2, 3], 0, 16)}, "safetensors_shape"),
        ({"a": tensor([4], 0, 16, "F64")}, "safetensors_shape"),
        ({"a": tensor([4], 0, 16, "object")}, "safetensors_shape"),
        ({"a": tensor([-4], 0, 16)}, "safetensors_shape"),
        ({"a": tensor([2**62, 4], 0, 16)}, "safetensors_shape"),
        ({"a": tensor([True, 4], 0, 16)}, "safetensors_shape"),
        ({"a": tensor([1] * 9 + [4], 0, 16)}, "safetensors_shape"),
        ({"a": {**tensor([4], 0, 16), "code": "x"}}, "safetensors_header"),
        ({"a": []}, "safetensors_header"),
        ({"a" * 600: tensor([4], 0, 16)}, "safetensors_header"),
        ({"a\n": tensor([4], 0, 16)}, "safetensors_header"),
        ({"__metadata__": {"format": 1}, "a": tensor([4], 0, 16)}, "safetensors_header"),
        ({"__metadata__": {"format": "pt"}}, "safetensors_header"),
    ],
)
def test_headers_are_believed_in_nothing(tensors: dict[str, Any], code: str) -> None:
    assert code_of(weights(tensors)) == code


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1', b'{"a": NaN}', b"{" + b'"a":{' * 5_000 + b"}" * 5_001,
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
        b'"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
        b'{"\xff": 1}', b'{"a": ' + b"9" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_headers_are_plain_json(text: bytes) -> None:
    assert code_of(struct.pack("<Q", len(text)) + text + bytes(16)) == "safetensors_header"
