"""How long a row will keep an engine busy: rough, for sizing slices, and never billed.

A model's catalog entry may say better: ``tokens_per_second``, ``images_per_second`` (at its own
number of steps) or ``real_time_factor`` (seconds of sound or video made in a second).
"""

from __future__ import annotations

from shared.db.models import Model
from shared.sharding import MAX_RESULTS, TARGET_SECONDS
from shared.specs import CompositionSpec, ImageSpec, InferenceSpec, SpeechSpec, VideoSpec

INPUT_TOKEN_COST = 0.1
"""Prefilling a prompt token takes about a tenth of generating one."""
TOKENS_PER_SECOND = {"text": 300.0, "embedding": 5_000.0, "classifier": 5_000.0}
DEFAULT_TOKENS_PER_SECOND = 300.0
DEFAULT_NEW_TOKENS = 512

IMAGES_PER_SECOND = 1.0
IMAGE_STEPS = 30
"""Of a model whose entry doesn't say."""
QUALITY_STEPS = {"low": 0.5, "high": 1.5, "hd": 1.5}

SPEECH_FACTOR = 20.0
VIDEO_FACTOR = 0.1
COMPOSITION_FACTOR = 2.0
VIDEO_SECONDS = 4.0
"""Of a generated video that names no length."""
SCENE_SECONDS = 6.0
"""Of a scene that is as long as its narration."""

GRAPH_SECONDS = TARGET_SECONDS / 32
"""A slice has 32 rows that are graphs: they are unfolded together, and their steps are shards of
their own."""

EMBEDDED_PICTURES = 64
"""Most pictures of a slice that stand in its lines in base64: a worker holds the lines until the
slice is stored."""


def result_weight(spec: InferenceSpec) -> int:
    """What a row's answer takes of ``MAX_RESULTS``."""
    if isinstance(spec, ImageSpec) and spec.response_format == "b64_json":
        return spec.result_count * (MAX_RESULTS // EMBEDDED_PICTURES)
    return spec.result_count


def expected_seconds(spec: InferenceSpec, model: Model) -> float:
    """A row's share of an engine's time at full load."""
    if model.engine == "fake":
        return 0.0
    match spec:
        case ImageSpec():
            return _image_seconds(spec, model)
        case SpeechSpec():
            return spec.expected_seconds / _setting(model, "real_time_factor", SPEECH_FACTOR)
        case VideoSpec():
            seconds = float(spec.seconds or VIDEO_SECONDS)
            return seconds / _setting(model, "real_time_factor", VIDEO_FACTOR)
        case CompositionSpec():
            seconds = sum(scene.seconds or SCENE_SECONDS for scene in spec.scenes)
            return seconds / _setting(model, "real_time_factor", COMPOSITION_FACTOR)
        case _:
            return _text_seconds(spec, model)


def _text_seconds(spec: InferenceSpec, model: Model) -> float:
    rate = TOKENS_PER_SECOND.get(model.engine, DEFAULT_TOKENS_PER_SECOND)
    default = int(model.settings.get("default_max_tokens") or DEFAULT_NEW_TOKENS)
    output = spec.estimated_output_tokens(default)
    inputs = spec.estimated_input_tokens()
    work = output + inputs * (INPUT_TOKEN_COST if output else 1.0)
    return work / _setting(model, "tokens_per_second", rate)


def _image_seconds(spec: ImageSpec, model: Model) -> float:
    usual = _setting(model, "default_steps", IMAGE_STEPS)
    steps = spec.steps or usual * QUALITY_STEPS.get(spec.quality, 1.0)
    return spec.n * steps / usual / _setting(model, "images_per_second", IMAGES_PER_SECOND)


def _setting(model: Model, name: str, default: float) -> float:
    return float(model.settings.get(name) or default)
