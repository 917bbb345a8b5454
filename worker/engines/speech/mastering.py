"""The second pass over a row's samples: loudness, peaks, sample rate, encoding, and the picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from worker.engines.protocol import OutputFile
from worker.engines.sounds import (
    EXTENSIONS,
    MEDIA_TYPES,
    Envelope,
    LoudnessMeter,
    Resampler,
    SoundWriter,
    file_of,
    format_rate,
    limit,
    write_waveform,
)
from worker.engines.sounds.encoding import fresh_path

if TYPE_CHECKING:
    from worker.engines.speech.rows import SpeechRow

_MOST_GAIN = 10 ** (30 / 20)
_SECONDS_AT_ONCE = 10.0
_TAGS = {"comment": "synthetic speech, made by Pressrun", "software": "Pressrun"}


class Mastered(msgspec.Struct, frozen=True):
    """A finished sound."""

    files: list[OutputFile]
    """The sound and its waveform."""
    seconds: float
    rate: int
    loudness_lufs: float | None


class Mastering:
    """Encodes one row, some seconds of sound at a call. Used by one thread at a time."""

    def __init__(self, row: SpeechRow, provenance: Mapping[str, Any]) -> None:
        spec, settings = row.spec, row.settings
        self._row = row
        self._provenance = provenance
        self._format = spec.response_format
        self._rate = format_rate(self._format, spec.sample_rate or row.rate)
        self._ceiling = 10 ** (settings.ceiling_dbfs / 20)
        self._gain = gain_towards(row.meter.integrated(), settings.loudness_lufs)
        self._path = fresh_path(row.spool, EXTENSIONS[self._format])
        self._writer = SoundWriter(self._path, self._format, self._rate, tags=_TAGS)
        self._resampler = Resampler(row.rate, self._rate)
        self._meter = LoudnessMeter(row.rate)
        self._envelope = Envelope(row.frames)
        self._place = 0
        self._finished: list[Path] = []

    def proceed(self) -> Mastered | None:
        """Encodes the next few sentences; the result after the last one."""
        pieces = self._row.spoken
        first = self._place
        start = 0 if first == 0 else pieces[first].start
        while self._place < len(pieces):
            self._place += 1
            if pieces[self._place - 1].until - start >= _SECONDS_AT_ONCE * self._row.rate:
                break
        self._encode(start, pieces[self._place - 1].until)
        return self._finish() if self._place == len(pieces) else None

    def abandon(self) -> None:
        """Removes what is written."""
        self._writer.close()
        for path in (self._path, *self._finished):
            path.unlink(missing_ok=True)

    def _encode(self, start: int, end: int) -> None:
        rate = self._row.rate
        samples = limit(self._row.read(start, end) * self._gain, rate, self._ceiling)
        self._meter.feed(samples)
        self._envelope.feed(samples)
        self._writer.write(self._resampler.feed(samples))

    def _finish(self) -> Mastered:
        row = self._row
        self._writer.write(self._resampler.flush())
        self._writer.close()
        seconds = row.frames / row.rate
        sound = file_of(
            self._path,
            row=row.row.id,
            name=f"speech{EXTENSIONS[self._format]}",
            role="audio",
            media_type=MEDIA_TYPES[self._format],
            seconds=seconds,
            provenance=self._provenance,
        )
        waveform = write_waveform(self._envelope, row.spool, row=row.row.id, of=sound)
        self._finished.append(Path(waveform.path))
        loudness = self._meter.integrated()
        return Mastered([sound, waveform], seconds, self._rate, loudness)


def gain_towards(measured: float | None, wanted: float | None) -> float:
    """The factor from one loudness to another, in LUFS; 1 for silence or without a wish."""
    if measured is None or wanted is None:
        return 1.0
    return min(_MOST_GAIN, float(10 ** ((wanted - measured) / 20)))
