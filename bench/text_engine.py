"""How fast the text engine is against bare transformers, and how far microbatches move text.

    python -m bench.text_engine throughput MODEL_DIRECTORY
    python -m bench.text_engine throughput MODEL_DIRECTORY --one-thread
    python -m bench.text_engine agreement MODEL_DIRECTORY

The contenders take turns and ratios are of their best rounds. On a machine that is busy with
other work ``--one-thread`` counts CPU seconds of one thread instead of the clock's.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from worker.engines.base import Engine
from worker.engines.protocol import Load, Row, RowResult
from worker.engines.text import create

Clock = Callable[[], float]
CHAT = "/v1/chat/completions"
SUBJECTS = (
    "a lighthouse keeper", "the first winter on Mars", "a baker who cannot taste", "two rivers",
    "an old violin", "the last train home", "a city under glass", "a letter that came late",
    "a dog who kept bees", "the clock maker's daughter", "a map with no roads", "salt and iron",
    "the night market", "a boat made of books", "a garden in the desert", "an honest thief",
)  # fmt: skip
STATIC_ROWS = (32, 64, 128)
LEAST_NEW, MOST_NEW = 16, 128


@dataclass(frozen=True)
class Throughput:
    """Generated tokens per second; ratios of the best rounds."""

    rows: int
    in_flight: float
    static: dict[int, float]
    one_at_a_time: float
    in_flight_over_static: float
    in_flight_over_one: float
    dtype: str


def bodies(rows: int, seed: int = 7) -> list[dict[str, Any]]:
    """Chat bodies of mixed prompt and output lengths, greedy."""
    chance = random.Random(seed)
    made = []
    for index in range(rows):
        subject = SUBJECTS[index % len(SUBJECTS)]
        tail = " Take your time, and describe every detail." * chance.randint(0, 2)
        made.append(
            {
                "model": "m",
                "messages": [
                    {"role": "user", "content": f"Write a very long story about {subject}.{tail}"}
                ],
                "max_tokens": chance.randint(LEAST_NEW, MOST_NEW),
                "temperature": 0,
            }
        )
    return made


def serve(engine: Engine, wanted: list[dict[str, Any]]) -> dict[int, RowResult]:
    """Runs chat bodies to the end, all submitted at once."""
    for index, body in enumerate(wanted):
        refused = engine.submit(1, 1, Row(index, CHAT, json.dumps(body).encode()))
        if refused is not None:
            raise RuntimeError(refused.body.decode())
    results: dict[int, RowResult] = {}
    while engine.busy:
        results.update({result.index: result for result in engine.step()})
    return results


def load(model: str, **settings: Any) -> Engine:
    message = Load(model="m", engine="text", source=model, settings=settings)
    return create(message, lambda fraction, detail: None)


def in_flight_rate(engine: Engine, rows: int, clock: Clock = time.perf_counter) -> float:
    started = clock()
    results = serve(engine, bodies(rows))
    taken = clock() - started
    return sum(result.output_tokens for result in results.values()) / taken


class Bare:
    """transformers' own ``generate`` on the same weights."""

    def __init__(self, model: str, dtype: str) -> None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self._model = loaded.eval()
        self._model.generation_config.eos_token_id = None
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model)

    def rate(self, rows: int, new_tokens: int, clock: Clock = time.perf_counter) -> float:
        """Static microbatch of equal prompts and equal lengths: its best case."""
        prompt = self._tokenizer.apply_chat_template(
            bodies(1)[0]["messages"], add_generation_prompt=True, return_dict=False
        )
        ids = torch.tensor([prompt] * rows)
        started = clock()
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return rows * new_tokens / (clock() - started)


def throughput(
    model: str, rows: int = 128, rounds: int = 3, one_thread: bool = False
) -> Throughput:
    """Measures all contenders ``rounds`` times in turn, by the clock or by CPU seconds."""
    clock = time.process_time if one_thread else time.perf_counter
    if one_thread:
        torch.set_num_threads(1)
    engine = load(model)
    dtype = engine.detail["dtype"]
    bare = Bare(model, dtype)
    new_tokens = (LEAST_NEW + MOST_NEW) // 2
    flights: list[float] = []
    singles: list[float] = []
    statics: dict[int, list[float]] = {size: [] for size in STATIC_ROWS}
    in_flight_rate(engine, 8)
    bare.rate(8, 8)
    for _ in range(rounds):
        flights.append(in_flight_rate(engine, rows, clock))
        singles.append(bare.rate(1, new_tokens, clock))
        for size, rates in statics.items():
            rates.append(bare.rate(size, new_tokens, clock))
    best_static = {size: max(rates) for size, rates in statics.items()}
    return Throughput(
        rows=rows,
        in_flight=max(flights),
        static=best_static,
        one_at_a_time=max(singles),
        in_flight_over_static=max(flights) / max(best_static.values()),
        in_flight_over_one=max(flights) / max(singles),
        dtype=dtype,
    )


def agreement(model: str, rows: int = 32) -> dict[str, float]:
    """The share of greedy rows whose text differs alone and in a microbatch, by dtype."""
    wanted = [{**body, "max_tokens": 64} for body in bodies(rows)]
    differing: dict[str, float] = {}
    for dtype in ("bfloat16", "float32"):
        engine = load(model, dtype=dtype)
        together = serve(engine, wanted)
        alone = [serve(engine, [body])[0] for body in wanted]
        differs = [_text(together[i]) != _text(result) for i, result in enumerate(alone)]
        differing[dtype] = sum(differs) / rows
    return differing


def _text(result: RowResult) -> str:
    text: str = json.loads(result.body)["choices"][0]["message"]["content"]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.text_engine")
    parser.add_argument("what", choices=["throughput", "agreement"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-thread", action="store_true")
    given = parser.parse_args()
    model = str(given.model)
    if given.what == "throughput":
        found = throughput(model, given.rows or 128, given.rounds, given.one_thread)
        print(json.dumps(asdict(found), indent=2))
    else:
        print(json.dumps(agreement(model, given.rows or 32), indent=2))


if __name__ == "__main__":
    main()
