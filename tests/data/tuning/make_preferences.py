"""Writes ``preferences.jsonl`` and ``preferences_held_out.jsonl``: pairs of advertisements, of
which the calm one that says something is preferred to the loud one that says nothing.

    python tests/data/tuning/make_preferences.py

The parts are in ``preferences_parts.txt``, once for each file: the two share neither things that
are advertised nor ways of asking and of shouting.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from make_topics import read_parts

FOLDER = Path(__file__).resolve().parent
FILES = {"train": ("preferences.jsonl", 120), "held_out": ("preferences_held_out.jsonl", 40)}
SEED = 20260109


def pairs(parts: dict[str, list[str]], count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Every thing equally often, each time asked for and answered in another way."""
    made: dict[str, dict[str, Any]] = {}
    while len(made) < count:
        thing = parts["thing"][len(made) % len(parts["thing"])]
        pair = _pair(thing, parts, rng)
        made.setdefault(json.dumps(pair), pair)
    return list(made.values())


def _pair(thing: str, parts: dict[str, list[str]], rng: random.Random) -> dict[str, Any]:
    name, fact, why = thing.split("|")
    words = {
        "a": name,
        "A": _capital(name),
        "b": name.split(" ", 1)[1],
        "fact": fact,
        "why": why,
        "Why": _capital(why),
    }
    asked, good, bad = (rng.choice(parts[kind]).format(**words) for kind in ("ask", "good", "bad"))
    return {
        "input": {"messages": [{"role": "user", "content": asked}]},
        "preferred_output": [{"role": "assistant", "content": good}],
        "non_preferred_output": [{"role": "assistant", "content": bad}],
    }


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def main() -> None:
    rng = random.Random(SEED)
    parts = read_parts(FOLDER / "preferences_parts.txt")
    for section, (name, count) in FILES.items():
        lines = [json.dumps(p, ensure_ascii=False) for p in pairs(parts[section], count, rng)]
        (FOLDER / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
