"""What rows have consumed, summed up for the commit of their shard."""

from __future__ import annotations

from shared.lifecycle.usage import MEDIA_ROLES
from shared.lifecycle.working import UsageLine
from worker.engines.protocol import RowResult


class Consumed:
    """Good rows of one endpoint and model."""

    def __init__(self) -> None:
        self._rows = self._input_tokens = self._output_tokens = self._images = 0
        self._media_seconds = 0.0
        self._compute_seconds: float | None = 0.0
        """None once a row was not measured."""

    def add(self, result: RowResult) -> None:
        self._rows += 1
        self._input_tokens += result.input_tokens
        self._output_tokens += result.output_tokens
        for file in result.files:
            self._images += file.role == "image"
            if file.role in MEDIA_ROLES:
                self._media_seconds += file.seconds or 0.0
        if result.compute_seconds is None or self._compute_seconds is None:
            self._compute_seconds = None
        else:
            self._compute_seconds += result.compute_seconds

    def line(self, endpoint: str, model: str) -> UsageLine:
        return UsageLine(
            endpoint,
            model,
            self._rows,
            self._input_tokens,
            self._output_tokens,
            self._images,
            self._media_seconds,
            self._compute_seconds,
        )
