"""From a row's body to the pieces that will be spoken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from shared.errors import InvalidRequest
from shared.specs import parse_body_json
from shared.specs.speech import SpeechSpec
from worker.engines.protocol import Row
from worker.engines.sounds import MP3_RATES
from worker.engines.speech.base import SpeechModel, Utterance
from worker.engines.speech.rows import Piece, SpeechRow
from worker.engines.speech.sentences import Part, cut
from worker.engines.speech.settings import SpeechSettings

_VOICES_IN_MESSAGE = 50


class Reader:
    """Reads rows for one model."""

    def __init__(self, model: SpeechModel, settings: SpeechSettings, spool: Path) -> None:
        self._model = model
        self._settings = settings
        self._spool = spool

    def read(self, shard: int, epoch: int, row: Row) -> SpeechRow:
        """The row, ready to be spoken. Raises InvalidRequest."""
        spec = parse_body_json(row.endpoint, row.body)
        if not isinstance(spec, SpeechSpec):
            raise InvalidRequest(f"the speech engine does not serve {row.endpoint}")
        if spec.response_format == "mp3" and spec.sample_rate not in (None, *MP3_RATES):
            known = ", ".join(map(str, MP3_RATES))
            raise InvalidRequest(f"mp3 has the sample rates {known}", param="sample_rate")
        voice = self._voice(spec.voice)
        seed = spec.seed if spec.seed is not None else _seed_of(row.id)
        pieces = list(self._pieces(spec, voice, seed))
        if not pieces:
            raise InvalidRequest("there is nothing to read aloud in the text", param="input")
        return SpeechRow(
            shard, epoch, row, spec, pieces, seed, self._model.rate, self._settings, self._spool
        )

    def _voice(self, wanted: str) -> str:
        known = [voice.id for voice in self._model.voices]
        if wanted == "default":
            return known[0]
        if wanted not in known:
            listed = ", ".join(known[:_VOICES_IN_MESSAGE])
            message = f"this model has no voice '{wanted}'; it has {listed}"
            raise InvalidRequest(message, param="voice")
        return wanted

    def _pieces(self, spec: SpeechSpec, voice: str, seed: int) -> Iterator[Piece]:
        slowest, fastest = self._model.speeds
        pace = min(fastest, max(slowest, spec.speed))
        for whole in cut(spec.input, self._model.longest):
            for part, text in self._prepared(whole, voice):
                digest = hashlib.blake2b(f"{seed} {part.text}".encode(), digest_size=7).digest()
                utterance = Utterance(text, voice, pace, int.from_bytes(digest))
                yield Piece(part.text, utterance, part.after)

    def _prepared(self, part: Part, voice: str) -> Iterator[tuple[Part, str]]:
        """What there is to say of a part: as it is, or in halves where the model would not read it
        to its end."""
        text = self._model.prepare(part.text, voice)
        if text and (len(part.text) == 1 or self._model.fits(text)):
            yield part, text
        elif text:
            *first, last = cut(part.text, (len(part.text) + 1) // 2)
            for smaller in (*(Part(each.text, "clause") for each in first), last):
                after = part.after if smaller is last else smaller.after
                yield from self._prepared(Part(smaller.text, after), voice)


def _seed_of(row_id: str) -> int:
    """The same on every attempt at a row, so that a repeated one sounds the same."""
    return int.from_bytes(hashlib.blake2b(row_id.encode(), digest_size=6).digest())
