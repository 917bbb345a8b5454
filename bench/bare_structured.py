"""The text engine with and without a schema, in a process of its own, so that torch stays out of
the benchmark's.

    python -m bench.bare_structured MODEL_DIRECTORY

answers each line of JSON on standard input, ``{"held": bool, "rows": n, "new_tokens": n}``, with
tokens a second, and how many answers satisfied the schema or were cut at their limit.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache, partial
from typing import Any

from bench.beside import serve as serve_lines
from bench.text_engine import SUBJECTS, load, serve
from worker.engines import slot_scheduler
from worker.engines.base import Engine

AD = {
    "type": "object",
    "properties": {
        "headline": {"type": "string", "maxLength": 60},
        "body": {"type": "string", "maxLength": 400},
        "call_to_action": {"enum": ["Buy now", "Learn more", "Sign up"]},
        "keywords": {
            "type": "array",
            "items": {"type": "string", "maxLength": 20},
            "minItems": 1,
            "maxItems": 5,
        },
    },
    "required": ["headline", "body", "call_to_action", "keywords"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "ad", "schema": AD, "strict": True}}


class Asked:
    """One engine; its masks are timed where the scheduler asks for them."""

    def __init__(self, model: str) -> None:
        self._engine: Engine = load(model)
        self._masking: list[float] = []
        scheduler: Any = slot_scheduler
        hold = scheduler.hold

        def timed(logits: Any, choices: Any) -> Any:
            began = time.perf_counter()
            held = hold(logits, choices)
            self._masking.append(time.perf_counter() - began)
            return held

        scheduler.hold = timed
        for held in (False, True):
            serve(self._engine, bodies(8, 4, held=held))

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        wanted = bodies(asked["rows"], asked["new_tokens"], held=asked["held"])
        self._masking.clear()
        began = time.perf_counter()
        results = serve(self._engine, wanted)
        seconds = time.perf_counter() - began
        tokens = sum(result.output_tokens for result in results.values())
        choices = [json.loads(result.body)["choices"][0] for result in results.values()]
        return {
            "tokens_per_second": tokens / seconds,
            "tokens": tokens,
            "satisfied": sum(c["message"]["refusal"] is None for c in choices),
            "cut": sum(c["finish_reason"] == "length" for c in choices),
            "mask_ms_a_step": 1e3 * sum(self._masking) / len(self._masking),
            "dtype": self._engine.detail["dtype"],
        }


def bodies(rows: int, new_tokens: int, *, held: bool) -> list[dict[str, Any]]:
    """Greedy chat bodies of the same limit of tokens."""
    more = {"response_format": FORMAT} if held else {}
    return [
        {
            "model": "m",
            "messages": [
                {
                    "role": "user",
                    "content": f"Write an ad, as JSON, for a book about {subject} ({number}).",
                }
            ],
            "max_tokens": new_tokens,
            "temperature": 0,
            **more,
        }
        for number, subject in ((i, SUBJECTS[i % len(SUBJECTS)]) for i in range(rows))
    ]


@cache
def _asked(model: str) -> Asked:
    return Asked(model)


def answer(model: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What one line asks for."""
    return _asked(model).answer(asked)


if __name__ == "__main__":
    serve_lines(partial(answer, sys.argv[1]))
