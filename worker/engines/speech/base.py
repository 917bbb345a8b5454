"""What a speech model is to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Voice(msgspec.Struct, frozen=True):
    """Somebody that a model can speak as."""

    id: str
    name: str
    language: str
    """A BCP 47 tag such as ``en-US``; empty where the model's files don't say."""


class Utterance(msgspec.Struct, frozen=True):
    """One sentence to be spoken."""

    text: str
    """Already normalised for the model."""
    voice: str
    speed: float
    """Within the model's ``speeds``."""
    seed: int
    """Non-negative; below 2**63."""


class Unspeakable(Exception):
    """The model can't read the text; the message may be shown to a tenant."""


class SpeechModel(Protocol):
    """A loaded voice. ``speak`` is called from at most ``lanes`` threads at once."""

    @property
    def rate(self) -> int:
        """Samples per second."""

    @property
    def voices(self) -> Sequence[Voice]:
        """At least one; the first is the default."""

    @property
    def lanes(self) -> int:
        """How many calls of ``speak`` may run side by side."""

    @property
    def together(self) -> int:
        """The most utterances in one call of ``speak``."""

    @property
    def longest(self) -> int:
        """The most characters in one utterance."""

    @property
    def speeds(self) -> tuple[float, float]:
        """The slowest and the fastest pace that it speaks by itself."""

    @property
    def fingerprint(self) -> str:
        """Changes with anything that would make it sound otherwise."""

    @property
    def resident_bytes(self) -> int: ...

    @property
    def detail(self) -> dict[str, Any]:
        """What was chosen: backend, device, dtype."""

    def prepare(self, text: str, voice: str) -> str:
        """The text as ``Utterance`` wants it; empty when nothing in it can be spoken."""

    def fits(self, prepared: str) -> bool:
        """Whether it reads all of a prepared text at once: numbers grow when they are spelled."""

    def speak(self, utterances: Sequence[Utterance]) -> list[Samples]:
        """(samples,) mono for each, full scale is ±1; empty for what has no sound.

        Raises Unspeakable.
        """
