"""Safetensors files by our own reading of the format: every byte of them is accounted for.

    8 bytes: length of the header, little endian; header: JSON; then the tensors, without a gap

The header is believed in nothing: its length is bounded before it is read, each tensor's bytes are
what its type and shape say, together they are exactly the rest of the file, and the file ends in
nothing that another program would open.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from worker.tuning.data.example import Refused, shown
from worker.upkeep.imports import strict_json

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 16 * 2**20
"""The library's own limit is 100 MB; a hundred thousand tensors need a tenth of it."""
MOST_TENSORS = 100_000
MOST_DIMENSIONS = 8
MOST_NAME_CHARACTERS = 512
METADATA = "__metadata__"
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2,
    "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes of one number, by the format's name of its type."""

_HEADER, _OFFSETS, _SHAPE, _LENGTH = (
    "safetensors_header", "safetensors_offsets", "safetensors_shape", "safetensors_length",
)  # fmt: skip
_PICKLE_PROTOCOLS = range(0x02, 0x06)
_ZIP_END, _ZIP_END_BYTES, _ZIP_COMMENT_BYTES = b"PK\x05\x06", 22, 2**16
_MEMBERS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header says it."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    """Bytes from the header's end."""


def header_length(prefix: bytes, size: int) -> int:
    """Bytes of the header of a file of ``size`` bytes that begins with ``prefix`` (9 bytes are
    enough). Raises Refused for what is no safetensors file."""
    if prefix[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        raise _stranger(prefix)
    (length,) = struct.unpack("<Q", prefix[:LENGTH_BYTES])
    if length > MOST_HEADER_BYTES:
        raise Refused(_HEADER, f"its header has more than {MOST_HEADER_BYTES} bytes")
    if LENGTH_BYTES + length > size:
        raise Refused(_LENGTH, "it is shorter than its header says")
    return int(length)


def read_header(data: bytes, size: int) -> dict[str, Tensor]:
    """The tensors of a file of ``size`` bytes, whose header is ``data``. Raises Refused."""
    text = data.rstrip(b" ")
    if not text.endswith(b"}"):
        raise Refused(_HEADER, "its header is no JSON object")
    try:
        found = strict_json.decode(text, most_depth=3)
    except Refused as refusal:
        raise Refused(_HEADER, f"its header: {refusal.message}") from None
    _check_metadata(found.pop(METADATA, {}))
    if not 0 < len(found) <= MOST_TENSORS:
        raise Refused(_HEADER, f"it has {len(found)} tensors; 1 to {MOST_TENSORS} are taken")
    tensors = {name: _tensor(name, said) for name, said in found.items()}
    _check_offsets(tensors, size - LENGTH_BYTES - len(data))
    return tensors


def verify(chunks: Iterable[bytes], size: int) -> dict[str, Tensor]:
    """The tensors of a file that ``chunks`` brings whole. Raises Refused unless it is a
    safetensors file of exactly ``size`` bytes, and nothing else at the same time."""
    stream = iter(chunks)
    head = _take(stream, b"", LENGTH_BYTES + 1)
    wanted = LENGTH_BYTES + header_length(head, size)
    head = _take(stream, head, wanted)
    if len(head) < wanted:
        raise Refused(_LENGTH, "it is shorter than its header says")
    tensors = read_header(head[LENGTH_BYTES:wanted], size)
    tail, seen = head, len(head)
    for chunk in stream:
        seen += len(chunk)
        tail = (tail + chunk)[-_ZIP_END_BYTES - _ZIP_COMMENT_BYTES :]
    if seen != size:
        raise Refused(_LENGTH, f"it has {seen} bytes, {size} were announced")
    _refuse_archive(tail)
    return tensors


def read_tensors(read: Callable[[int, int], bytes], size: int) -> dict[str, Tensor]:
    """The tensors of a file of which ``read(start, end)`` gives any bytes. Raises Refused."""
    length = header_length(read(0, LENGTH_BYTES + 1), size)
    return read_header(read(LENGTH_BYTES, LENGTH_BYTES + length), size)


def _take(stream: Iterator[bytes], have: bytes, wanted: int) -> bytes:
    """``have`` and as much more of the stream as makes ``wanted`` bytes, or a little over."""
    parts, total = [have], len(have)
    while total < wanted and (chunk := next(stream, None)) is not None:
        parts.append(chunk)
        total += len(chunk)
    return b"".join(parts)


def _stranger(prefix: bytes) -> Refused:
    if prefix[:1] == b"\x80" and len(prefix) > 1 and prefix[1] in _PICKLE_PROTOCOLS:
        return Refused("pickle_refused", "it is pickled data, whatever its name says")
    if prefix.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")):
        return Refused("nested_archive", "it is an archive, whatever its name says")
    return Refused("not_safetensors", "it is not a safetensors file")


def _refuse_archive(tail: bytes) -> None:
    """A ZIP is found from its end: one whose last record ends where the file does would open."""
    place = tail.find(_ZIP_END)
    while place >= 0:
        record = tail[place : place + _ZIP_END_BYTES]
        if len(record) == _ZIP_END_BYTES:
            (comment,) = struct.unpack("<H", record[-2:])
            if place + _ZIP_END_BYTES + comment == len(tail):
                raise Refused("polyglot_refused", "it is a ZIP at the same time")
        place = tail.find(_ZIP_END, place + 1)


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Refused(_HEADER, f"{METADATA} is not an object of texts")


def _tensor(name: str, said: Any) -> Tensor:
    if not name.isprintable() or not 0 < len(name) <= MOST_NAME_CHARACTERS:
        raise Refused(_HEADER, "it has a tensor whose name is none")
    if not isinstance(said, dict) or said.keys() != _MEMBERS:
        raise Refused(_HEADER, f"'{shown(name)}' is not described by {', '.join(sorted(_MEMBERS))}")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise Refused(_SHAPE, f"'{shown(name)}' is of an unknown type")
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS:
        raise Refused(_SHAPE, f"the shape of '{shown(name)}' is none")
    if not _are_sizes(offsets) or len(offsets) != 2:  # noqa: PLR2004 - where it starts and ends
        raise Refused(_OFFSETS, f"the offsets of '{shown(name)}' are none")
    start, end = offsets
    if math.prod(shape) * ITEM_BYTES[dtype] != end - start:
        raise Refused(_SHAPE, f"'{shown(name)}' has not the bytes that its shape and type need")
    return Tensor(dtype, tuple(shape), start, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**48 for n in value
    )


def _check_offsets(tensors: dict[str, Tensor], data_bytes: int) -> None:
    """They lie one behind the other, from the header to the end of the file."""
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != place:
            what = "overlaps" if tensor.start < place else "leaves a gap before"
            raise Refused(_OFFSETS, f"'{shown(name)}' {what} another tensor")
        place = tensor.end
    if place > data_bytes:
        raise Refused(_LENGTH, f"its tensors need {place} bytes, it has {data_bytes}")
    if place < data_bytes:
        message = f"{data_bytes - place} bytes behind its tensors belong to nothing"
        raise Refused("polyglot_refused", message)
