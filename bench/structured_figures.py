"""What it costs to hold answers to a JSON schema."""

from __future__ import annotations

from bench.beside import beside
from bench.report import Measurement, median
from bench.rig import Rig

ROWS, NEW_TOKENS = 128, 128


def structured_vs_plain(rig: Rig) -> Measurement:
    """The text engine's tokens a second where every row is held to the schema of an ad, over the
    same rows without one; both take turns in one engine, and what is counted is what they really
    generated."""
    rows, new_tokens = (16, 16) if rig.quick else (ROWS, NEW_TOKENS)
    rates: dict[str, list[float]] = {"structured": [], "plain": []}
    said: dict[str, dict[str, float]] = {}
    with beside(rig, "bench.bare_structured", str(rig.text_model)) as engine:
        for _ in range(rig.rounds):
            for name, samples in rates.items():
                held = name == "structured"
                said[name] = engine.ask(held=held, rows=rows, new_tokens=new_tokens)
                samples.append(said[name]["tokens_per_second"])
    sides = {name: median(samples) for name, samples in rates.items()}
    return Measurement(
        sides["structured"] / sides["plain"],
        {
            "unit": "tokens/s",
            "sides": sides,
            "samples": rates,
            "rows": rows,
            "new_tokens_at_most": new_tokens,
            "tokens": {name: answer["tokens"] for name, answer in said.items()},
            "answers_that_satisfy_the_schema": said["structured"]["satisfied"],
            "answers_cut_at_their_limit": said["structured"]["cut"],
            "mask_ms_a_step": said["structured"]["mask_ms_a_step"],
            "dtype": said["structured"]["dtype"],
        },
    )
