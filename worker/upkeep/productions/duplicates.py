"""Near-duplicates among many texts: one is missed by a chance of one in two million, and none
is called one that isn't.

Each text that is kept leaves ``BANDS`` hashes and a small bitmap in memory, 200 bytes, and the
hashes of its shingles in a file. A new text's candidates are those it shares a band with (MinHash);
the bitmaps rule most of them out for certain, and the rest are compared shingle by shingle. What
is found depends on the texts and their order alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from shared.productions.specs import LEAST_SIMILARITY
from shared.productions.words import shingles
from worker.upkeep.productions.runs import Grown, Runs
from worker.upkeep.productions.shingle_sets import SavedSets, ShingleSets

SHINGLE_WORDS = 3
BANDS = 22
MOST_ROWS = 8
"""Of a band; more would miss texts that are the same but for their first words."""
MISSED = 5e-7
"""The most likely that two texts, just as alike as the threshold, share no band."""
BLOCK = 512
"""Texts that are looked up together."""
BITMAP_WORDS = 2
_SEED = 0x9E3779B97F4A7C15

Hashes = npt.NDArray[np.uint64]


def rows_for(threshold: float) -> int:
    """How many MinHashes make a band: the most of which ``MISSED`` still holds."""
    enough = (rows for rows in range(1, MOST_ROWS + 1) if (1 - threshold**rows) ** BANDS <= MISSED)
    return max(enough)


class NearDuplicates:
    """Keeps texts of which no two have a Jaccard similarity of ``threshold`` or more, in the order
    in which they come. For one thread; ``scratch`` is a folder for a file of 8 bytes a shingle."""

    def __init__(self, threshold: float, scratch: Path) -> None:
        if not LEAST_SIMILARITY <= threshold <= 1:
            raise ValueError(f"the threshold is between {LEAST_SIMILARITY} and 1")
        self._threshold = threshold
        self._rows = rows_for(threshold)
        self._runs = Runs(BANDS)
        self._sets = ShingleSets(scratch)
        self._bitmaps = Grown((BITMAP_WORDS,))
        self._mixers = _mixers(BANDS * self._rows)

    def __len__(self) -> int:
        """Texts kept."""
        return len(self._sets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes its file."""
        self._sets.close()

    def add(self, texts: Sequence[str]) -> list[int | None]:
        """For each text None when it is kept, or the number, from 0 in the order of keeping, of the
        kept text that it is a near-duplicate of."""
        found: list[int | None] = []
        for at in range(0, len(texts), BLOCK):
            found += self._add_block(texts[at : at + BLOCK])
        return found

    def save(self, file: BinaryIO) -> None:
        """Writes what ``restore`` needs: 8 bytes a text and 8 a shingle."""
        self._sets.save(file, {"threshold": self._threshold, "words": SHINGLE_WORDS})

    @classmethod
    def restore(cls, file: BinaryIO, scratch: Path) -> Self:
        """What was saved; goes on as if it had never been away. Raises ValueError for a file that
        is not whole, or of another kind."""
        saved = SavedSets(file)
        if saved.about.get("words") != SHINGLE_WORDS:
            raise ValueError("the file has shingles of another size")
        found = cls(saved.about["threshold"], scratch)
        try:
            while sets := saved.read(BLOCK):
                block = _Block(sets, found._mixers, found._rows)
                found._keep(block, list(range(len(sets))))
        except BaseException:
            found.close()
            raise
        return found

    def _add_block(self, texts: Sequence[str]) -> list[int | None]:
        block = _Block([_hashes(text) for text in texts], self._mixers, self._rows)
        first = len(self)
        before = self._runs.sharing(block.bands)
        here: dict[tuple[int, int], list[int]] = {}
        kept: list[int] = []
        found: list[int | None] = []
        for at, hashes in enumerate(block.sets):
            candidates = self._ruled_in(before.get(at), block, at)
            original = self._first_alike(hashes, candidates)
            if original is None:
                inside = _sharing(here, block.bands[at])
                nearby = next((each for each in inside if self._alike(block, at, kept[each])), None)
                original = None if nearby is None else first + nearby
            if original is None:
                for band, key in enumerate(block.bands[at].tolist()):
                    here.setdefault((band, key), []).append(len(kept))
                kept.append(at)
            found.append(original)
        self._keep(block, kept)
        return found

    def _keep(self, block: _Block, kept: list[int]) -> None:
        self._runs.add(block.bands[kept], len(self))
        self._sets.add([block.sets[at] for at in kept])
        self._bitmaps.extend(block.bitmaps[kept])

    def _ruled_in(
        self, candidates: npt.NDArray[np.uint32] | None, block: _Block, at: int
    ) -> npt.NDArray[np.uint32]:
        """Without those that can't be alike: each bit in which two bitmaps differ is a shingle that
        one text has and the other has not."""
        if candidates is None:
            return np.zeros(0, np.uint32)
        bitmaps = self._bitmaps.filled[candidates]
        apart = np.bitwise_count(bitmaps ^ block.bitmaps[at]).sum(axis=1)
        together = self._sets.sizes(candidates) + len(block.sets[at])
        most = together * (1 - self._threshold) / (1 + self._threshold)
        near: npt.NDArray[np.uint32] = candidates[apart <= most + 1e-9]
        return near

    def _first_alike(self, hashes: Hashes, candidates: npt.NDArray[np.uint32]) -> int | None:
        for number in candidates.tolist():
            if _similarity(hashes, self._sets.read(number)) >= self._threshold:
                return int(number)
        return None

    def _alike(self, block: _Block, one: int, other: int) -> bool:
        return _similarity(block.sets[one], block.sets[other]) >= self._threshold


class _Block:
    """Texts that are looked up together: their shingles' hashes, bands and bitmaps."""

    def __init__(self, sets: list[Hashes], mixers: Hashes, rows: int) -> None:
        self.sets = sets
        self.bands = np.stack([_bands(each, mixers, rows) for each in sets])
        self.bitmaps = np.stack([_bitmap(each) for each in sets])


def _sharing(here: dict[tuple[int, int], list[int]], bands: npt.NDArray[np.uint32]) -> list[int]:
    shared = set[int]()
    for band, key in enumerate(bands.tolist()):
        shared.update(here.get((band, key), ()))
    return sorted(shared)


def _hashes(text: str) -> Hashes:
    """Of the text's shingles, sorted, each once."""
    digests = b"".join(
        blake2b(shingle.encode("utf-8", "replace"), digest_size=8).digest()
        for shingle in shingles(text, SHINGLE_WORDS)
    )
    return np.unique(np.frombuffer(digests, np.uint64))


def _mixers(count: int) -> Hashes:
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_SEED)
    return _mixed(steps)


def _mixed(values: Hashes) -> Hashes:
    """The end of SplitMix64: each bit of the input changes half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bands(hashes: Hashes, mixers: Hashes, rows: int) -> npt.NDArray[np.uint32]:
    """A hash of the least values under ``rows`` orders, for each band."""
    least = np.empty(len(mixers), np.uint64)
    step = max(1, 2**20 // len(hashes))  # a long text has many
    for at in range(0, len(mixers), step):
        least[at : at + step] = _mixed(hashes[None, :] ^ mixers[at : at + step, None]).min(axis=1)
    banded = np.zeros(BANDS, np.uint64)
    for row in least.reshape(BANDS, rows).T:
        banded = _mixed(banded * np.uint64(3) + row)
    return (banded >> np.uint64(32)).astype(np.uint32)


def _bitmap(hashes: Hashes) -> Hashes:
    bits = np.zeros(BITMAP_WORDS * 64, np.uint8)
    bits[hashes % np.uint64(BITMAP_WORDS * 64)] = 1
    return np.packbits(bits).view(np.uint64)


def _similarity(one: Hashes, other: Hashes) -> float:
    """Jaccard; both are sorted and without repetitions."""
    if len(one) > len(other):
        one, other = other, one
    at = np.minimum(np.searchsorted(other, one), len(other) - 1)
    common = int((other[at] == one).sum())
    return common / (len(one) + len(other) - common)
