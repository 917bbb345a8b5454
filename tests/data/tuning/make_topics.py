"""Writes ``topics.csv``: 650 short pieces of news and advertising in five topics.

    python tests/data/tuning/make_topics.py

Every piece is put together from the parts in ``topics_parts.txt``. The 150 pieces of
``topics_held_out.csv`` were written one by one, without looking at those parts: they have other
sentences and other subjects, so a score on them says something.
"""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
EACH = 130
SEED = 20260107
_SLOT = re.compile(r"\{(\w+)\}")
_SENTENCE = re.compile(r"(?:^|\. )\w")

Parts = dict[str, dict[str, list[str]]]
"""By topic and name of the part; the part ``piece`` holds what is filled in."""


def read_parts(path: Path) -> Parts:
    """``[topic]`` begins a topic, ``name:`` a part, and each further line is one choice."""
    parts: Parts = {}
    choices: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            topic = parts.setdefault(line.strip("[]"), {})
        elif line.endswith(":"):
            choices = topic.setdefault(line[:-1], [])
        elif line:
            choices.append(line)
    return parts


def pieces(topic: dict[str, list[str]], rng: random.Random) -> list[str]:
    """``EACH`` different texts."""
    made: dict[str, None] = {}
    while len(made) < EACH:
        text = rng.choice(topic["piece"])
        while slot := _SLOT.search(text):
            text = text.replace(slot[0], rng.choice(topic[slot[1]]), 1)
        made[_SENTENCE.sub(lambda found: found[0].upper(), text)] = None
    return list(made)


def main() -> None:
    rng = random.Random(SEED)
    parts = read_parts(FOLDER / "topics_parts.txt")
    rows = [(text, topic) for topic in sorted(parts) for text in pieces(parts[topic], rng)]
    rng.shuffle(rows)
    with (FOLDER / "topics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
