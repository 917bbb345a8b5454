"""Each line of a batch once, for who follows the cursor: while slices end, and after its end."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from api.batch_results import Cursor, Walk, read_cursor, write_lines
from shared.db.batch_results import BatchLook, SliceLook
from shared.errors import InvalidRequest, NotFound

RUNNING = BatchLook(False, False, None, None)
ENDED = BatchLook(True, True, "final-output", "final-errors")


@dataclass
class Batch:
    """Slices with lines of many lengths; the store that has them, and their final files."""

    slices: list[SliceLook] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    look: BatchLook = RUNNING
    chunk: int = 7

    def add(self, good: int, bad: int, *, has_results: bool = True) -> None:
        n = len(self.slices)
        output = b"".join(b"%d-good-%d%s\n" % (n, k, b"x" * (k % 5)) for k in range(good))
        errors = b"".join(b"%d-bad-%d%s\n" % (n, k, b"y" * (k % 3)) for k in range(bad))
        keys = [f"{n}/output" if output else None, f"{n}/errors" if errors else None]
        self.objects |= {k: v for k, v in zip(keys, (output, errors), strict=True) if k}
        if not has_results:
            keys = [None, None]
        self.slices.append(
            SliceLook(n, False, has_results, keys[0], len(output), keys[1], len(errors))
        )

    def end(self) -> None:
        """As assembly does: one file of all outputs, one of all errors."""
        for name in ("output", "errors"):
            parts = [self.objects.pop(f"{part.ordinal}/{name}", b"") for part in self.slices]
            self.objects[f"final-{name}"] = b"".join(parts)
        self.look = ENDED

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        if key not in self.objects:
            raise NotFound("there is no object")
        data = self.objects[key][start:end]
        return (data[at : at + self.chunk] for at in range(0, len(data), self.chunk))

    def tell(
        self, cursor: Cursor, status: str | None, lines: int, size: int = 10**6
    ) -> tuple[bytes, Cursor, bool]:
        """What one answer holds, where to go on, and whether more is there."""
        before = self.slices[: cursor.ordinal]
        sums = sum(p.output_bytes for p in before), sum(p.errors_bytes for p in before)
        rest = iter(self.slices[cursor.ordinal :])
        walk = Walk(self.look, rest, sums, cursor, status)
        target = io.BytesIO()
        told = write_lines(walk, self.read, target, most_lines=lines, most_bytes=size)
        assert target.getvalue().count(b"\n") == told.lines <= lines
        return target.getvalue(), walk.cursor_after(told), told.cut

    def wanted(self, status: str | None) -> list[bytes]:
        objects = dict(self.objects)
        found = []
        for part in self.slices:
            for name, hidden in (("output", "failed"), ("errors", "succeeded")):
                if status != hidden:
                    found += objects.get(f"{part.ordinal}/{name}", b"").splitlines()
        return found


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("status", [None, "succeeded", "failed"])
def test_each_line_once_whatever_happens_meanwhile(seed: int, status: str | None) -> None:
    dice = random.Random(seed)
    batch = Batch(chunk=dice.choice([1, 3, 16, 1_000]))
    for _ in range(dice.randint(1, 8)):
        batch.add(dice.choice([0, 0, 1, 5]), dice.choice([0, 0, 1, 4]))
    everything, wanted = batch.slices, batch.wanted(status)
    arrived = dice.randint(0, len(everything))
    batch.slices = everything[:arrived] + [p._replace(open=True) for p in everything[arrived:]]
    cursor, told, quiet = Cursor(), [], 0
    while quiet < 2:
        data, cursor, cut = batch.tell(cursor, status, dice.choice([1, 2, 50]))
        cursor = read_cursor(cursor.token(status), status)
        told += data.splitlines()
        assert cursor.lines == len(told)
        if not cut and batch.look is RUNNING and not data:
            assert told == wanted[: len(told)]
            batch.slices = everything
            if dice.random() < 0.5:
                batch.end()
        quiet += not data and not cut and batch.slices is everything
        if quiet == 1 and batch.look is RUNNING:
            batch.end()
            quiet = 0
    assert told == wanted


def test_a_slice_that_never_ran_is_told_from_the_final_file() -> None:
    batch = Batch()
    batch.add(2, 1)
    batch.add(0, 2, has_results=False)
    batch.add(1, 0)
    wanted = batch.wanted(None)
    data, cursor, _ = batch.tell(Cursor(), None, 100)
    assert (data.splitlines(), cursor) == (wanted[:3], Cursor(1, 0, 3))
    assert batch.tell(cursor, None, 100)[0] == b""
    # Who wants successes alone need not wait for it.
    assert len(batch.tell(Cursor(), "succeeded", 100)[0].splitlines()) == 3
    batch.end()
    assert batch.tell(cursor, None, 100)[0].splitlines() == wanted[3:]


def test_an_answer_ends_at_so_many_bytes_and_has_one_line_at_least() -> None:
    batch = Batch()
    batch.add(5, 0)
    lines = [line + b"\n" for line in batch.wanted(None)]
    two = len(lines[0] + lines[1])
    data, cursor, cut = batch.tell(Cursor(), None, 100, two)
    assert (data, cut) == (lines[0] + lines[1], True)
    data, cursor, cut = batch.tell(cursor, None, 100, 1)
    assert (data, cursor.lines, cut) == (lines[2], 3, True)
    data, cursor, cut = batch.tell(cursor, None, 2)
    assert (data, cut) == (lines[3] + lines[4], False)


@pytest.mark.parametrize("token", ["", "a", "a1", "x0.0.0", "a-1.0.0", "a0.0.0\n", "a" + "9" * 99])
def test_what_is_no_cursor(token: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_cursor(token, None)
    assert refused.value.param == "after"


def test_a_cursor_of_another_status_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        read_cursor(Cursor(1, 2, 3).token("failed"), None)


@pytest.mark.parametrize("offset", [3, 10_000])
def test_a_cursor_that_nobody_gave_is_refused(offset: int) -> None:
    batch = Batch()
    batch.add(5, 5)
    with pytest.raises(InvalidRequest):
        batch.tell(Cursor(0, offset, 0), None, 10)


@pytest.mark.parametrize("look", [RUNNING, ENDED, ENDED._replace(output_key=None)])
def test_files_that_are_gone_are_not_found(look: BatchLook) -> None:
    batch = Batch(look=look)
    batch.add(1, 0)
    batch.objects.clear()
    with pytest.raises(NotFound, match="deleted"):
        batch.tell(Cursor(), None, 10)
