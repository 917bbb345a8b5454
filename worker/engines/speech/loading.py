"""Which model a catalog entry means, and its options."""

from __future__ import annotations

import os

from pydantic import ValidationError

from worker.engines.base import EngineFailed, OnProgress
from worker.engines.protocol import Load
from worker.engines.speech.base import SpeechModel
from worker.engines.speech.settings import SpeechSettings

HIBARI = "hibari"
"""The source that stands for the voices inside the wheel ``hibari-tts``."""


def read_speech_settings(load: Load) -> SpeechSettings:
    """The options of the message. Raises EngineFailed ``bad_settings`` naming the first bad one."""
    try:  # not ``worker.engines.loading.read_settings``: that brings torch, which hibari needs not
        return SpeechSettings.model_validate(load.settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise EngineFailed("bad_settings", f"engine setting '{name}': {first['msg']}") from None


def load_model(
    source: str, settings: SpeechSettings, threads: int, progress: OnProgress
) -> SpeechModel:
    """Loads ``source``. Raises EngineFailed."""
    if source == HIBARI:
        from worker.engines.speech.hibari_model import load_hibari

        return load_hibari(settings, threads, progress)
    from worker.engines.speech.transformers_model import load_transformers

    return load_transformers(source, settings, threads, progress)


def cpu_threads() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
