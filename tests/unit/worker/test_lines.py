"""Cutting a stream into lines: the same however it is chunked, in bounded memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from worker.upkeep.lines import Line, read_lines

TEXTS = st.lists(st.sampled_from([b"a", b"bc" * 5, b"\n", b"\r\n", b"\xff", b"\x00", b" "])).map(
    b"".join
)


def lines(chunks: list[bytes], max_bytes: int = 1_000) -> list[Line]:
    return list(read_lines(chunks, max_bytes=max_bytes))


@given(TEXTS | st.binary(max_size=60), st.lists(st.integers(0, 60)), st.integers(0, 12))
def test_any_chunking_gives_the_same_lines(data: bytes, cuts: list[int], max_bytes: int) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    chunks.insert(len(chunks) // 2, b"")
    found = lines(chunks, max_bytes)

    parts = data.split(b"\n")
    whole = [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
    assert len(found) == len(whole)
    offset = 0
    for number, (line, text) in enumerate(zip(found, whole, strict=True), start=1):
        content = text.removesuffix(b"\n")
        assert (line.number, line.byte_start, line.byte_end) == (number, offset, offset + len(text))
        assert line.text == (content if len(content) <= max_bytes else None)
        offset += len(text)
    assert offset == len(data)


def test_a_line_of_exactly_the_limit_is_kept_and_one_more_byte_is_not() -> None:
    assert [line.text for line in lines([b"abc\nabcd\nab", b"c"], 3)] == [b"abc", None, b"abc"]


def test_an_endless_line_is_skipped_in_bounded_memory() -> None:
    chunk = b"x" * 2**16

    def stream() -> Iterator[bytes]:
        for _ in range(512):  # 32 MiB without a newline
            yield chunk
        yield b"\nshort\n"

    tracemalloc.start()
    try:
        found = list(read_lines(stream(), max_bytes=2**20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [line.text for line in found] == [None, b"short"]
    assert found[1].byte_start == 512 * 2**16 + 1
    assert peak < 4 * 2**20


def test_a_byte_at_a_time_is_no_worse() -> None:
    data = b"one\ntwo\n\nlast"
    assert lines([bytes([byte]) for byte in data]) == lines([data])
