"""What it saves to prefill a preamble once that all rows of a batch begin with."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from bench.batches import run_batch
from bench.report import Measurement, median
from bench.rig import Rig, logged
from shared.models_catalog import ModelEntry

SHARED, APART = "smollm2", "smollm2-apart"
WORDS = 1_000
NEW_TOKENS = 32
BATCH_SECONDS = 1_800.0
MOST_ROUNDS = 2
"""The side that shares nothing takes minutes."""
_RULES = (
    "Write one advertisement for the product that the customer names.",
    "Speak to one person, in the present tense, and never shout.",
    "Name what the product does before you say how it feels.",
    "Prefer short words to long ones and verbs to adjectives.",
    "Do not promise what nobody can keep, and do not mention competitors.",
    "Where a number helps, give one number and say what it counts.",
    "Leave out prices, dates and places unless the customer gives them.",
    "End with a sentence that tells the reader what to do next.",
)
PRODUCTS = (
    "a folding bicycle", "a wool scarf", "a solar lamp", "a tent for two", "a bread knife",
    "a music box", "a rain barrel", "a desk of oak",
)  # fmt: skip


def preamble(words: int = WORDS) -> str:
    """House rules, numbered so that no two sentences are the same, of exactly so many words."""
    told = (f"{number}. {rule}" for number, rule in enumerate(itertools.cycle(_RULES), start=1))
    made: list[str] = []
    for sentence in told:
        made += sentence.split()
        if len(made) >= words:
            return " ".join(made[:words])
    raise AssertionError("there is always another rule")


def rows(count: int, model: str) -> list[dict[str, Any]]:
    """Chat rows, greedy: the same system message, another product each."""
    system = {"role": "system", "content": preamble()}
    made = []
    for number in range(count):
        product = PRODUCTS[number % len(PRODUCTS)]
        user = {"role": "user", "content": f"Customer {number} sells {product}."}
        made.append(
            {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": model,
                    "messages": [system, user],
                    "max_tokens": NEW_TOKENS,
                    "temperature": 0,
                },
            }
        )
    return made


def shared_preamble(rig: Rig) -> Measurement:
    """Rows a second of a batch whose rows share a preamble of 1,000 words, from upload to the end,
    over the same rows with ``share_prefixes`` off. Both sides are the whole plant."""
    count = 16 if rig.quick else 64
    source = str(rig.text_model)
    models = (
        ModelEntry(id=SHARED, engine="text", source=source),
        ModelEntry(id=APART, engine="text", source=source, settings={"share_prefixes": False}),
    )
    rates: dict[str, list[float]] = {SHARED: [], APART: []}
    tokens: dict[str, list[int]] = {SHARED: [], APART: []}
    with rig.plant(models=models, settings={"LOG_LEVEL": "INFO"}) as plant:
        plant.start()
        for model in rates:  # loads it
            run_batch(plant, _file(rig, rows(2, model)), BATCH_SECONDS)
        ready = logged(plant, "worker-0", "engine_ready")[-1]["detail"]
        for _ in range(min(rig.rounds, MOST_ROUNDS)):
            for model, samples in rates.items():
                batch = run_batch(plant, _file(rig, rows(count, model)), BATCH_SECONDS)
                samples.append(count / batch.seconds)
                tokens[model].append(batch.tokens)
    sides = {"shared": median(rates[SHARED]), "apart": median(rates[APART])}
    return Measurement(
        sides["shared"] / sides["apart"],
        {
            "unit": "rows/s",
            "sides": sides,
            "samples": rates,
            "rows": count,
            "words_of_preamble": WORDS,
            "new_tokens_at_most": NEW_TOKENS,
            "new_tokens_per_batch": tokens,
            "dtype": str(ready["dtype"]),
        },
    )


def _file(rig: Rig, lines: list[dict[str, Any]]) -> Path:
    path = rig.folder("input") / "input.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
