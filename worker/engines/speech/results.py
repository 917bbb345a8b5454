"""What a finished row answers, and what is noted about how it was made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from worker.engines.protocol import RowProgress, RowResult
from worker.engines.speech.mastering import Mastered
from worker.engines.speech.rows import SpeechRow

_INPUT_IN_PROVENANCE = 4000
"""Characters; of longer texts only the digest is kept."""


def result_of(row: SpeechRow, mastered: Mastered, *, model: str, public_url: str) -> RowResult:
    """An ``audio.speech`` object and its two files."""
    sound = mastered.files[0]
    loudness = mastered.loudness_lufs
    body = {
        "object": "audio.speech",
        "model": model,
        "voice": row.pieces[0].utterance.voice,
        "artifact_id": sound.id,
        "url": f"{public_url}/v1/artifacts/{sound.id}/content",
        "media_type": sound.media_type,
        "seconds": round(mastered.seconds, 3),
        "sample_rate": mastered.rate,
        "loudness_lufs": None if loudness is None else round(loudness, 2),
        "sentences": _sentences(row),
    }
    return RowResult(
        row.shard,
        row.epoch,
        row.row.index,
        200,
        msgspec.json.encode(body),
        row.spec.estimated_input_tokens(),
        0,
        mastered.files,
    )


def _sentences(row: SpeechRow) -> list[dict[str, Any]]:
    """Text, start and end of each piece, in seconds from the start."""
    return [
        {
            "text": piece.text,
            "start": round(spoken.start / row.rate, 3),
            "end": round(spoken.end / row.rate, 3),
        }
        for piece, spoken in zip(row.pieces, row.spoken, strict=True)
    ]


def provenance_of(row: SpeechRow, model: str, fingerprint: str) -> dict[str, Any]:
    """All that it takes to make the sound again."""
    text = row.spec.input
    return {
        "model": model,
        "fingerprint": fingerprint,
        "voice": row.pieces[0].utterance.voice,
        "speed": row.spec.speed,
        "seed": row.seed,
        "input": text if len(text) <= _INPUT_IN_PROVENANCE else None,
        "input_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "loudness_lufs": row.settings.loudness_lufs,
    }


def progress_of(row: SpeechRow) -> Iterator[RowProgress]:
    """What is new about a running row since the last call: sentences spoken, encoding to come."""
    step = len(row.spoken)
    if step == row.reported:
        return
    row.reported = step
    stage = "encoding" if row.all_spoken else "speaking"
    yield RowProgress(row.shard, row.epoch, row.row.index, step, len(row.pieces) + 1, stage)
