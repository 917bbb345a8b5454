"""One row on its way: sentences to speak, samples spoken so far, and where each begins and ends."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.specs.speech import SpeechSpec
from worker.engines.protocol import Row
from worker.engines.sounds import LoudnessMeter
from worker.engines.speech.base import Utterance
from worker.engines.speech.joining import LEAD_SECONDS, Break, pause_frames
from worker.engines.speech.mastering import Mastering
from worker.engines.speech.settings import SpeechSettings

Samples = NDArray[np.float32]

_IN_MEMORY_BYTES = 8 * 2**20
"""About 90 s of 24 kHz; what is longer lies in an unnamed file of the spool."""
_BYTES_PER_SAMPLE = 4


class Piece(msgspec.Struct, frozen=True):
    """A sentence, or a part of one that is too long."""

    text: str
    """As the tenant wrote it."""
    utterance: Utterance
    after: Break


class Spoken(msgspec.Struct, frozen=True):
    """Where a piece lies in the sound, in samples."""

    start: int
    end: int
    until: int
    """Where the next begins: the pause is in between."""


@dataclass(eq=False)
class SpeechRow:
    """A row's state. Spoken pieces may come in any order; they are appended in theirs."""

    shard: int
    epoch: int
    row: Row
    spec: SpeechSpec
    pieces: Sequence[Piece]
    seed: int
    rate: int
    settings: SpeechSettings
    spool: Path
    asked: int = 0
    """Pieces given out to be spoken."""
    in_flight: int = 0
    """Tasks of this row that run now."""
    dropped: bool = False
    delivered: bool = False
    """Its files are the supervisor's."""
    reported: int = -1
    mastering: Mastering | None = None
    spoken: list[Spoken] = field(default_factory=list)
    _early: dict[int, Samples] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.meter = LoudnessMeter(self.rate)
        self.samples: IO[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by close
            _IN_MEMORY_BYTES, dir=str(self.spool)
        )
        self.frames = 0
        self._append(np.zeros(round(LEAD_SECONDS * self.rate), np.float32))

    @property
    def all_spoken(self) -> bool:
        return len(self.spoken) == len(self.pieces)

    @property
    def silent(self) -> bool:
        return all(item.start == item.end for item in self.spoken)

    def add(self, index: int, samples: Samples) -> None:
        """The trimmed sound of a piece."""
        self._early[index] = samples
        while len(self.spoken) in self._early:
            place = len(self.spoken)
            sound = self._early.pop(place)
            start = self.frames
            self._append(sound)
            end = self.frames
            last = place == len(self.pieces) - 1
            if len(sound) or last:
                after = "end" if last else self.pieces[place].after
                pause = pause_frames(after, self.settings, self.spec.speed, self.rate)
                self._append(np.zeros(pause, np.float32))
            self.spoken.append(Spoken(start, end, self.frames))

    def read(self, start: int, end: int) -> Samples:
        """(end - start,) of what was appended."""
        self.samples.seek(start * _BYTES_PER_SAMPLE)
        return np.frombuffer(self.samples.read((end - start) * _BYTES_PER_SAMPLE), np.float32)

    def close(self) -> None:
        """Frees the samples, and removes files that nobody will fetch."""
        self.samples.close()
        if self.mastering is not None and not self.delivered:
            self.mastering.abandon()

    def _append(self, samples: Samples) -> None:
        self.meter.feed(samples)
        self.samples.write(samples.astype(np.float32, copy=False).tobytes())
        self.frames += len(samples)
