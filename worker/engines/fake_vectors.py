"""What the fake engine answers for embeddings: unit vectors, each a hash of its text."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Sequence

import msgspec


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float] | str
    object: str = "embedding"


class _EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class _Vectors(msgspec.Struct):
    model: str
    data: list[_Vector]
    usage: _EmbeddingUsage
    object: str = "list"


_encode = msgspec.json.Encoder().encode


def vectors_body(
    model: str, digests: Sequence[bytes], *, dimensions: int, packed: bool, read: int
) -> bytes:
    """A list of ``embedding`` objects, one for each digest, in base64 where ``packed``; ``read`` is
    how many words the texts have."""
    vectors: list[_Vector] = []
    for index, digest in enumerate(digests):
        unit = _unit_vector(digest, dimensions)
        if packed:
            floats = struct.pack(f"<{dimensions}f", *unit)
            vectors.append(_Vector(index, base64.b64encode(floats).decode()))
        else:
            vectors.append(_Vector(index, unit))
    return _encode(_Vectors(model, vectors, _EmbeddingUsage(read, read)))


def _unit_vector(digest: bytes, dimensions: int) -> list[float]:
    # Odd numbers from -255 to 255: never zero, so even one dimension has a direction.
    values = [2 * byte - 255 for byte in hashlib.shake_128(digest).digest(dimensions)]
    norm = math.hypot(*values)
    return [value / norm for value in values]
