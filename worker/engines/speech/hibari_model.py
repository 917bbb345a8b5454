"""hibari: English voices of 8 MB each, on one core about a hundred times faster than real time.

The voice ``heart`` lies inside the wheel ``hibari-tts``; others are spoken when their files lie in
a folder of this machine. Nothing is ever downloaded here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.engines.base import EngineFailed, OnProgress
from worker.engines.speech.base import Samples, Utterance, Voice
from worker.engines.speech.joining import trimmed
from worker.engines.speech.settings import SpeechSettings
from worker.engines.speech.text_english import spell_out

LONGEST = 240
"""Characters of one utterance: with these the model's 400 phonemes suffice, but for the oddest."""
SPEEDS = (0.5, 1.0)
"""Slower it speaks by itself. Faster its paces are coarse (2.0 came out as 1.7, 1.25 as 1.1)."""
_BREATH_SECONDS = 0.1
_MOST_PHONEMES = 400
_MOST_HYPHENS = 8
_CLAUSES = re.compile(r"(?<=[,;:—])\s+")
_SPOKEN = re.compile(r"[^\W_]")


def voices(folder: str | None = None) -> dict[str, Path]:
    """The voices whose files lie on this machine, by name: the one of the wheel, then those in
    ``folder`` (hibari's cache directory when it isn't given) that are as their maker left them."""
    from hibari.voices import ASSETS, VOICES, cache_dir

    found = {}
    for name, entry in VOICES.items():
        bundled = entry.get("bundled", False)
        path = Path(ASSETS if bundled else folder or cache_dir()) / entry["file"]
        if path.is_file() and _digest(path) == entry["sha256"]:
            found[name] = path
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _describe(name: str) -> Voice:
    from hibari.voices import VOICES

    entry = VOICES[name]
    return Voice(
        name, f"{name.capitalize()} ({entry['accent']}, {entry['gender']})", entry["language"]
    )


class HibariModel:
    """A ``SpeechModel``. Its sessions use one thread each; sentences run side by side."""

    together = 1
    longest = LONGEST
    speeds = SPEEDS

    def __init__(self, paths: Mapping[str, Path], lanes: int) -> None:
        from hibari import SAMPLE_RATE

        self._paths = paths
        self._voices = [_describe(name) for name in paths]
        self._lanes = lanes
        self._loaded: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._rate = int(SAMPLE_RATE)
        version = importlib.metadata.version("hibari-tts")
        digests = "".join(_digest(path) for path in paths.values())
        self._fingerprint = f"fp_{hashlib.sha256((version + digests).encode()).hexdigest()[:16]}"

    @property
    def rate(self) -> int:
        return self._rate

    @property
    def voices(self) -> Sequence[Voice]:
        return self._voices

    @property
    def lanes(self) -> int:
        return self._lanes

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def resident_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._paths.values())

    @property
    def detail(self) -> dict[str, Any]:
        return {"backend": "hibari", "device": "cpu"}

    def prepare(self, text: str, voice: str) -> str:
        spoken = parted(spell_out(text, british=self._british(voice), dotted=True))
        return spoken if _SPOKEN.search(spoken) else ""

    def fits(self, prepared: str) -> bool:
        return True

    def speak(self, utterances: Sequence[Utterance]) -> list[Samples]:
        return [self._speak(utterance) for utterance in utterances]

    def load(self, voice: str) -> Any:
        """The voice's session, made at its first use."""
        from hibari import Hibari

        with self._lock:
            if voice not in self._loaded:
                self._loaded[voice] = Hibari(voice, model=str(self._paths[voice]), threads=1)
            return self._loaded[voice]

    def _british(self, voice: str) -> bool:
        return next(known.language for known in self._voices if known.id == voice) == "en-GB"

    def _speak(self, utterance: Utterance) -> Samples:
        model = self.load(utterance.voice)
        with self._lock:  # the reader of words fills its tables as it goes
            phonemes = _groups(model.g2p(utterance.text))
        rng = np.random.default_rng(utterance.seed)
        sounds: list[NDArray[np.float32]] = []
        for group in phonemes:
            sound = model.from_ids(model.ids(group), utterance.speed, rng)
            if len(phonemes) == 1:
                return np.asarray(sound, np.float32)
            breath = np.zeros(round(_BREATH_SECONDS * self._rate), np.float32)
            sounds += [trimmed(sound, self._rate), breath]
        return np.concatenate(sounds[:-1]) if sounds else np.zeros(0, np.float32)


def parted(text: str) -> str:
    """``text`` with long chains of hyphens taken apart: for the reader of words a chain is one
    compound, whose every beginning and end it tries."""
    return " ".join(
        word.replace("-", " ") if word.count("-") > _MOST_HYPHENS else word
        for word in text.split(" ")
    )


def _groups(phonemes: str) -> list[str]:
    """What the model takes at once: all, or clauses when that is too much."""
    groups: list[str] = []
    for clause in _CLAUSES.split(phonemes) if len(phonemes) > _MOST_PHONEMES else [phonemes]:
        if groups and len(groups[-1]) + len(clause) < _MOST_PHONEMES:
            groups[-1] += f" {clause}"
        else:
            groups += [
                clause[start : start + _MOST_PHONEMES]
                for start in range(0, len(clause), _MOST_PHONEMES)
            ]
    return groups


def load_hibari(settings: SpeechSettings, threads: int, progress: OnProgress) -> HibariModel:
    """Loads hibari with the voices of the catalog, or with all on this machine.

    Raises EngineFailed ``model_load_failed`` or ``bad_settings``.
    """
    progress(0.1, "reading hibari's voices")
    try:
        here = voices(settings.voices_folder)
    except ImportError as error:
        message = f"the wheels hibari-tts and onnxruntime are not installed: {error}"
        raise EngineFailed("model_load_failed", message) from None
    wanted = [entry.id for entry in settings.voices] or list(here)
    missing = [name for name in wanted if name not in here]
    if missing:
        message = f"engine setting 'voices': {', '.join(missing)} not on this machine; it has "
        raise EngineFailed("bad_settings", message + ", ".join(here))
    model = HibariModel({name: here[name] for name in wanted}, threads)
    progress(0.5, f"loading voice {wanted[0]}")
    model.speak([Utterance("Ready.", wanted[0], 1.0, 0)])
    return model
