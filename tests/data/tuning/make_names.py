"""Writes ``names.conll`` and ``names_held_out.conll``: sentences of news and advertising in which
persons, places, organisations and products are marked, in CoNLL columns.

    python tests/data/tuning/make_names.py

The parts are in ``names_parts.txt``, once for each file: the two share neither names nor sentences.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from make_topics import Parts, read_parts

FOLDER = Path(__file__).resolve().parent
FILES = {"train": ("names.conll", 480), "held_out": ("names_held_out.conll", 120)}
SEED = 20260108
_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"\[([^|\]]+)\|(\w+)\]|(\S+)")


def sentence(parts: dict[str, list[str]], rng: random.Random) -> str:
    """One with its marks: ``[Anna Weber|person] lives in [Lyon|place] .``"""
    text = rng.choice(parts["sentence"])
    while slot := _SLOT.search(text):
        text = text.replace(slot[0], rng.choice(parts[slot[1]]), 1)
    return text


def columns(marked: str) -> str:
    """A line for each word: the word and its BIO tag."""
    lines = []
    for name, label, plain in _WORD.findall(marked):
        for place, word in enumerate((name or plain).split()):
            tag = f"{'I' if place else 'B'}-{label}" if label else "O"
            lines.append(f"{word} {tag}\n")
    return "".join(lines)


def write(parts: Parts) -> None:
    rng = random.Random(SEED)
    for section, (name, count) in FILES.items():
        made: dict[str, None] = {}
        # Sentences without a slot are few: each comes once, and no more of them is asked for.
        while len(made) < count:
            made[columns(sentence(parts[section], rng))] = None
        (FOLDER / name).write_text("\n".join(made), encoding="utf-8")


if __name__ == "__main__":
    write(read_parts(FOLDER / "names_parts.txt"))
