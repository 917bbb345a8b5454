"""What the rows of a batch ask of which model, summed up while they are validated."""

from __future__ import annotations

from dataclasses import dataclass

from shared.specs import (
    ClassificationSpec,
    EmbeddingSpec,
    ImageSpec,
    InferenceSpec,
    ModerationSpec,
    ResponseSpec,
    VideoSpec,
)
from shared.specs.common import GenerationSpec


@dataclass(slots=True)
class Calls:
    """Rows of one endpoint and model. A sum is None once a row does not say."""

    rows: int = 0
    input_tokens: int | None = 0
    max_output_tokens: int | None = 0
    images: int | None = 0
    seconds: float | None = 0.0
    """Of video."""

    def add(self, spec: InferenceSpec) -> None:
        inputs, outputs = _tokens(spec)
        self.input_tokens = _plus(self.input_tokens, inputs)
        self.max_output_tokens = _plus(self.max_output_tokens, outputs)
        self.images = _plus(self.images, spec.n if isinstance(spec, ImageSpec) else None)
        self.seconds = None if self.seconds is None else _seconds(spec, self.seconds)


class Demand:
    """By endpoint and model; ``measured`` also sums up what the rows would consume."""

    def __init__(self, *, measured: bool) -> None:
        self._measured = measured
        self.calls: dict[tuple[str, str], Calls] = {}

    @property
    def model(self) -> str | None:
        """The one model that all rows name."""
        models = {model for _, model in self.calls}
        return models.pop() if len(models) == 1 else None

    def add(self, endpoint: str, model: str, spec: InferenceSpec) -> None:
        calls = self.calls.setdefault((endpoint, model), Calls())
        calls.rows += 1
        if self._measured:
            calls.add(spec)


def _tokens(spec: InferenceSpec) -> tuple[int | None, int | None]:
    """Of the prompt, and the most that may be generated."""
    if isinstance(spec, GenerationSpec | ResponseSpec):
        return spec.estimated_input_tokens(), spec.estimated_output_tokens(0) or None
    if isinstance(spec, EmbeddingSpec | ClassificationSpec | ModerationSpec):
        return spec.estimated_input_tokens(), 0
    return None, None


def _seconds(spec: InferenceSpec, so_far: float) -> float | None:
    said = spec.seconds if isinstance(spec, VideoSpec) else None
    return None if said is None else so_far + float(said)


def _plus(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more
