"""Sentences put end to end: silence trimmed, edges faded, pauses between."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worker.engines.speech.settings import SpeechSettings

Samples = NDArray[np.float32]
Break = Literal["clause", "sentence", "paragraph", "end"]
"""What follows a piece of text."""

LEAD_SECONDS = 0.05
"""Silence before the first sentence, since decoders and players swallow a beginning."""
TAIL_SECONDS = 0.2
_FADE_SECONDS = 0.006
_MARGIN_SECONDS = 0.015
_FLOOR = 10 ** (-46 / 20)
"""Below this part of the sentence's peak is silence …"""
_QUIETEST = 10 ** (-70 / 20)
"""… and below this anywhere."""


def trimmed(samples: Samples, rate: int) -> Samples:
    """(n,) without the silence around it, faded in and out to zero; empty if all is silence."""
    if len(samples) == 0:
        return samples
    loud = np.abs(samples)
    peak = float(loud.max())
    audible = np.flatnonzero(loud > max(_FLOOR * peak, _QUIETEST))
    if len(audible) == 0:
        return np.zeros(0, np.float32)
    margin = round(_MARGIN_SECONDS * rate)
    kept = samples[max(0, audible[0] - margin) : audible[-1] + margin + 1].astype(np.float32)
    reach = min(len(kept) // 2, round(_FADE_SECONDS * rate))
    fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(reach, dtype=np.float32) / max(1, reach))
    kept[:reach] *= fade
    kept[len(kept) - reach :] *= fade[::-1]
    return kept


def pause_frames(after: Break, settings: SpeechSettings, speed: float, rate: int) -> int:
    """Samples of silence after a piece; pauses shorten with the pace, but not the tail."""
    if after == "end":
        return round(TAIL_SECONDS * rate)
    seconds = {
        "clause": settings.clause_pause_seconds,
        "sentence": settings.sentence_pause_seconds,
        "paragraph": settings.paragraph_pause_seconds,
    }[after]
    return round(seconds / speed * rate)
