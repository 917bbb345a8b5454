"""Speech models of transformers: which adapter a checkpoint needs, and what all of them share.

Weights and voices are read from safetensors only, and no code of a checkpoint is ever run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging
from transformers.utils.hub import cached_file

from worker.engines.base import EngineFailed, OnProgress
from worker.engines.loading import dtype_name, fingerprint
from worker.engines.speech.base import Samples, SpeechModel, Utterance, Voice
from worker.engines.speech.settings import SpeechSettings, VoiceEntry
from worker.engines.speech.text_english import spell_out

ADAPTERS = {
    "vits": "worker.engines.speech.vits_model:load",
    "speecht5": "worker.engines.speech.speecht5_model:load",
    "bark": "worker.engines.speech.bark_model:load",
}
"""Model type → ``module:function``; what isn't named goes through transformers' own pipeline."""
OTHERS = "worker.engines.speech.pipeline_model:load"

_SPOKEN = re.compile(r"[^\W_]")
_DTYPES = {dtype_name(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint about to be loaded."""

    source: str
    config: PreTrainedConfig
    settings: SpeechSettings
    device: torch.device
    dtype: torch.dtype

    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.source, trust_remote_code=False)

    def weights(self, model_class: Any, source: str | None = None) -> Any:
        """A model in evaluation mode on the device, from safetensors."""
        model = model_class.from_pretrained(
            source or self.source, dtype=self.dtype, use_safetensors=True
        )
        return model.to(self.device).eval()

    def file(self, name: str) -> str | None:
        """The path of a file of the checkpoint, in its directory or the hub's cache."""
        found: str | None = cached_file(
            self.source,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return found

    def tensors(self, entry: VoiceEntry) -> dict[str, Tensor]:
        """What a voice's safetensors file holds. Raises EngineFailed ``model_load_failed``."""
        from safetensors.torch import load_file

        path = self.file(entry.file or "") if entry.file else None
        if path is None:
            raise EngineFailed("model_load_failed", f"voice '{entry.id}': no file '{entry.file}'")
        return load_file(path, device=str(self.device))


class TransformersModel:
    """What every adapter is; it adds ``_waveform``, which speaks one utterance."""

    lanes = 1
    together = 1
    longest = 200
    speeds = (1.0, 1.0)

    def __init__(
        self, checkpoint: Checkpoint, models: Sequence[Any], voices: Sequence[Voice], rate: int
    ) -> None:
        self._checkpoint = checkpoint
        self._voices = voices
        self._rate = rate
        self._english = (voices[0].language or "en").lower().startswith("en")
        self._bytes: int = sum(p.nbytes for model in models for p in model.parameters())
        self._fingerprint = fingerprint(models[0], checkpoint.dtype)

    @property
    def rate(self) -> int:
        return self._rate

    @property
    def voices(self) -> Sequence[Voice]:
        return self._voices

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def resident_bytes(self) -> int:
        return self._bytes

    @property
    def detail(self) -> dict[str, Any]:
        return {
            "backend": self._checkpoint.config.model_type,
            "device": str(self._checkpoint.device),
            "dtype": dtype_name(self._checkpoint.dtype),
            "microbatch_sentences": self.together,
        }

    def prepare(self, text: str, voice: str) -> str:
        spoken = spell_out(text) if self._english else text
        return spoken if _SPOKEN.search(spoken) else ""

    def fits(self, prepared: str) -> bool:
        return True

    def speak(self, utterances: Sequence[Utterance]) -> list[Samples]:
        """Each with its own random numbers."""
        sounds = []
        for utterance in utterances:
            torch.manual_seed(utterance.seed)
            with torch.inference_mode():
                sounds.append(as_samples(self._waveform(utterance)))
        return sounds

    def _waveform(self, utterance: Utterance) -> Tensor:
        raise NotImplementedError


def as_samples(waveform: Tensor) -> Samples:
    """(n,) finite float32 from a tensor of any dtype and any leading dimensions of one."""
    samples: Samples = waveform.detach().float().reshape(-1).cpu().numpy()
    return np.nan_to_num(samples, posinf=0.0, neginf=0.0)


def catalog_voices(settings: SpeechSettings, language: str) -> list[VoiceEntry]:
    """The catalog's voices, or one called ``default``; ``language`` for those that name none."""
    entries = settings.voices or [VoiceEntry(id="default", name="Default")]
    return [entry.model_copy(update={"language": entry.language or language}) for entry in entries]


def load_transformers(
    source: str, settings: SpeechSettings, threads: int, progress: OnProgress
) -> SpeechModel:
    """Loads a directory or hub id. Raises EngineFailed: ``model_load_failed``, ``bad_settings``,
    ``gpl_phonemizer_needed``, ``uroman_needed``."""
    torch.set_num_threads(threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # warnings of tokenizers may quote what they were given
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if (settings.dtype or "float32") not in _DTYPES:
        raise EngineFailed("bad_settings", f"engine setting 'dtype': one of {sorted(_DTYPES)}")
    progress(0.05, f"reading {source}")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        dtype = _DTYPES[settings.dtype or "float32"]
        checkpoint = Checkpoint(source, config, settings, device, dtype)
        progress(0.2, f"loading {config.model_type} as {dtype_name(dtype)}")
        module, _, function = ADAPTERS.get(config.model_type, OTHERS).partition(":")
        load: Callable[[Checkpoint], SpeechModel] = getattr(import_module(module), function)
        return load(checkpoint)
    except EngineFailed:
        raise
    except Exception as error:
        message = f"{source} cannot be loaded: {type(error).__name__}: {error}"
        raise EngineFailed("model_load_failed", message[:2000]) from error
