"""Sounds: read with bounds, resampled, measured, written, and drawn. Needs numpy and soundfile
(and Pillow for ``draw_waveform``), no torch."""

from worker.engines.sounds.decoding import Sound, SoundLimits, UnreadableSound, decode_sound
from worker.engines.sounds.encoding import (
    EXTENSIONS,
    MEDIA_TYPES,
    MP3_RATES,
    SoundFormat,
    SoundWriter,
    file_of,
    format_rate,
    write_sound,
)
from worker.engines.sounds.loudness import LoudnessMeter, integrated_loudness, limit, true_peak
from worker.engines.sounds.resampling import Resampler, resample
from worker.engines.sounds.stretching import stretch
from worker.engines.sounds.waveforms import Envelope, draw_waveform, write_waveform

__all__ = [
    "EXTENSIONS",
    "MEDIA_TYPES",
    "MP3_RATES",
    "Envelope",
    "LoudnessMeter",
    "Resampler",
    "Sound",
    "SoundFormat",
    "SoundLimits",
    "SoundWriter",
    "UnreadableSound",
    "decode_sound",
    "draw_waveform",
    "file_of",
    "format_rate",
    "integrated_loudness",
    "limit",
    "resample",
    "stretch",
    "true_peak",
    "write_sound",
    "write_waveform",
]
