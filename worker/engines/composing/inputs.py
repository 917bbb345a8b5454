"""The pictures and sounds of a composition, read within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from shared.errors import InvalidRequest
from shared.specs import MediaReference
from worker.engines.encoding import CHANNELS, SAMPLE_RATE
from worker.engines.pictures import decode_picture
from worker.engines.sounds import Sound, SoundLimits, UnreadableSound, decode_sound, resample


class Inputs:
    """What a row brought along. Every reading decodes again; nothing is kept."""

    def __init__(self, paths: Mapping[str, str], *, max_seconds: float) -> None:
        self._paths = paths
        self._sound_limits = SoundLimits(
            seconds=max_seconds, samples=ceil(max_seconds) * SAMPLE_RATE * CHANNELS
        )

    def picture(self, reference: MediaReference, param: str) -> Image:
        """RGB or RGBA. Raises InvalidRequest blaming ``param``."""
        return decode_picture(self._source(reference, param), param=param)

    def voice(self, reference: MediaReference, param: str) -> NDArray[np.float32]:
        """(n,), mono at ``SAMPLE_RATE``. Raises InvalidRequest blaming ``param``."""
        sound = self._sound(reference, param)
        return resample(sound.mono, sound.rate, SAMPLE_RATE)

    def music(self, reference: MediaReference, param: str, seconds: float) -> NDArray[np.float32]:
        """(n, 2) at ``SAMPLE_RATE``, its beginning of at most ``seconds``. Raises InvalidRequest
        blaming ``param``."""
        sound = self._sound(reference, param)
        needed = sound.samples[: ceil(seconds * sound.rate)]
        both = np.broadcast_to(needed, (len(needed), CHANNELS))
        return resample(both, sound.rate, SAMPLE_RATE)

    def _sound(self, reference: MediaReference, param: str) -> Sound:
        try:
            return decode_sound(self._source(reference, param), self._sound_limits)
        except UnreadableSound as error:
            raise InvalidRequest(str(error), param=param) from None

    def _source(self, reference: MediaReference, param: str) -> Path | bytes:
        try:
            inline = reference.data()
        except ValueError as error:
            raise InvalidRequest(str(error), param=param) from None
        if inline is not None:
            return inline[1]
        if reference.name not in self._paths:
            raise InvalidRequest(f"{reference.name} is not at hand", param=param)
        return Path(self._paths[reference.name])
