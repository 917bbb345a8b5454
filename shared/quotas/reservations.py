"""What accepted work may consume at most, as far as anybody can say before it runs.

Exact: rows, and the tokens that text may be generated with (the body's limit, or the model's own
where it names none, for each of its answers). Estimated: prompts, at four characters a token, and
the length of sound. Not reserved: compute-seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import PressrunError
from shared.quotas.prices import most_cost
from shared.specs import (
    CompositionSpec,
    ImageSpec,
    InferenceSpec,
    SpeechSpec,
    VideoSpec,
    parse_body,
)

DEFAULT_NEW_TOKENS = 512
"""Of a chat whose body and model name no limit: the text engine's own."""
VIDEO_SECONDS = 4.0
"""Of a generated video that names no length."""
SCENE_SECONDS = 6.0
"""Of a scene that is as long as its narration."""
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is set aside for work until it ends; ``cost`` in millionths of the prices' unit."""

    rows: int = 0
    tokens: int = 0
    cost: int = 0
    is_open_ended: bool = False
    """Whether nobody can say, before it runs, what it takes."""

    def __add__(self, other: Reservation) -> Reservation:
        return Reservation(
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.cost + other.cost,
            self.is_open_ended or other.is_open_ended,
        )


NOTHING = Reservation()
OPEN_ENDED = Reservation(is_open_ended=True)
"""Of work that is yet to be looked at, and starts no engine."""


def of_spec(spec: InferenceSpec, settings: Mapping[str, Any], price: Any) -> Reservation:
    """Of one row; ``settings`` and ``price`` are its model's."""
    inputs = outputs = images = 0
    seconds = 0.0
    match spec:
        case ImageSpec():
            images = spec.n
        case SpeechSpec():
            inputs, seconds = spec.estimated_input_tokens(), spec.expected_seconds
        case VideoSpec():
            seconds = float(spec.seconds or VIDEO_SECONDS)
        case CompositionSpec():
            seconds = sum(scene.seconds or SCENE_SECONDS for scene in spec.scenes)
        case _:
            inputs = spec.estimated_input_tokens()
            outputs = spec.estimated_output_tokens(most_new_tokens(settings))
    cost = most_cost(
        price,
        input_tokens=inputs,
        output_tokens=outputs,
        images=images,
        media_seconds=seconds,
    )
    return Reservation(1, inputs + outputs, cost)


def of_body(
    endpoint: str, body: Mapping[str, Any], settings: Mapping[str, Any], price: Any
) -> Reservation:
    """Of one row that is known by its body. One of a step that waits for others' results is no
    body yet: what is known of it counts, and its prompt by the length of all its texts."""
    try:
        spec = parse_body(endpoint, body, streams=True)
    except PressrunError:
        return _of_unfinished(endpoint, body, settings, price)
    return of_spec(spec, settings, price)


def most_new_tokens(settings: Mapping[str, Any]) -> int:
    """That an answer has when its request doesn't say."""
    return int(settings.get("default_max_tokens") or DEFAULT_NEW_TOKENS)


def _of_unfinished(
    endpoint: str, body: Mapping[str, Any], settings: Mapping[str, Any], price: Any
) -> Reservation:
    inputs = _characters(body) // CHARACTERS_PER_TOKEN + 1
    outputs = 0
    if endpoint in {"/v1/chat/completions", "/v1/completions"}:
        said = body.get("max_completion_tokens") or body.get("max_tokens")
        outputs = said if isinstance(said, int) else most_new_tokens(settings)
    images = body.get("n", 1) if endpoint.startswith("/v1/images/") else 0
    seconds = body.get("seconds") or VIDEO_SECONDS if endpoint.startswith("/v1/videos") else 0.0
    cost = most_cost(
        price,
        input_tokens=inputs,
        output_tokens=outputs,
        images=images if isinstance(images, int) else 1,
        media_seconds=float(seconds) if isinstance(seconds, int | float | str) else VIDEO_SECONDS,
    )
    return Reservation(1, inputs + outputs, cost)


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_characters, value))
    return 0
