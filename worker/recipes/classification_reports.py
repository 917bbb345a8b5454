"""How right a classifier is: exact counts, the table of every report, and a picture of mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Confusion = Sequence[Sequence[int]]
"""Rows are what is true, columns what was said, in the order of the labels."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Of one label. A share of nothing is 0."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """How often it is true."""


def label_score(label: str, *, right: float, said: float, true: float) -> LabelScore:
    """``right`` of the ``said`` ones are among the ``true`` ones."""
    precision = right / said if said else 0.0
    recall = right / true if true else 0.0
    f1 = 2 * right / (said + true) if said + true else 0.0
    return LabelScore(label, precision, recall, f1, int(true))


def label_scores(labels: Sequence[str], confusion: Confusion) -> list[LabelScore]:
    """One for each label."""
    said = [sum(row[column] for row in confusion) for column in range(len(labels))]
    return [
        label_score(label, right=row[place], said=said[place], true=sum(row))
        for place, (label, row) in enumerate(zip(labels, confusion, strict=True))
    ]


def accuracy(confusion: Confusion) -> float:
    """The share on the diagonal."""
    whole = sum(map(sum, confusion))
    return sum(row[place] for place, row in enumerate(confusion)) / whole if whole else 0.0


def macro_f1(labels: Sequence[str], confusion: Confusion) -> float:
    """The mean over labels that are true or were said at least once."""
    said = [any(row[column] for row in confusion) for column in range(len(labels))]
    seen = [
        score.f1
        for place, score in enumerate(label_scores(labels, confusion))
        if score.support or said[place]
    ]
    return sum(seen) / len(seen) if seen else 0.0


def majority_accuracy(counts: Mapping[str, int], truth: Mapping[str, int]) -> float:
    """Of always saying what is most frequent in ``counts``, measured on ``truth``."""
    most = max(sorted(counts), key=lambda label: counts[label])
    whole = sum(truth.values())
    return truth.get(most, 0) / whole if whole else 0.0


def scores_table(scores: Sequence[LabelScore], *, counted: str = "examples") -> str:
    """Markdown."""
    lines = [f"| label | precision | recall | F1 | {counted} |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {_cell(s.label)} | {s.precision:.3f} | {s.recall:.3f} | {s.f1:.3f} | {s.support} |"
        for s in scores
    ]
    return "\n".join(lines)


def confusion_table(labels: Sequence[str], confusion: Confusion) -> str:
    """Markdown: a row for each true label, a column for each that was said."""
    lines = [
        "| true ↓, said → | " + " | ".join(map(_cell, labels)) + " |",
        "|---|" + "---:|" * len(labels),
    ]
    lines += [
        f"| {_cell(label)} | " + " | ".join(map(str, row)) + " |"
        for label, row in zip(labels, confusion, strict=True)
    ]
    return "\n".join(lines)


def as_json(scores: Sequence[LabelScore]) -> list[dict[str, Any]]:
    """For a report file."""
    return [
        {
            "label": score.label,
            "precision": round(score.precision, 6),
            "recall": round(score.recall, 6),
            "f1": round(score.f1, 6),
            "support": score.support,
        }
        for score in scores
    ]


def _cell(text: str) -> str:
    """A label is a tenant's text: it must not end the cell, nor be Markdown or HTML."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*[]<>|~&!" else c for c in line)


# --- the picture ------------------------------------------------------------------------------

MOST_DRAWN = 40
"""Labels of a picture; with more of them the numbers could not be read."""
_CELL, _MARGIN, _FONT = 46, 16, 14
_LONGEST_LABEL = 24
_TITLE = "rows: true, columns: said"
_INK, _PAPER, _GRID = (25, 30, 40), (255, 255, 255), (225, 228, 233)
_RIGHT, _WRONG = (38, 116, 84), (186, 62, 44)


def draw_confusion(labels: Sequence[str], confusion: Confusion, path: Path) -> bool:
    """A PNG: each row's shares as shades, green where right, red where not, with the counts.

    False, and no picture, for more than ``MOST_DRAWN`` labels.
    """
    if len(labels) > MOST_DRAWN:
        return False
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT)
    names = [_short(label) for label in labels]
    room = int(max(font.getlength(name) for name in names)) + 2 * _MARGIN
    side = _CELL * len(labels)
    heading = _FONT + _MARGIN
    wide = max(room + side, int(font.getlength(_TITLE)) + _MARGIN) + _MARGIN
    picture = Image.new("RGB", (wide, heading + room + side + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(picture)
    top = heading + room
    pen.text((_MARGIN, _MARGIN // 2), _TITLE, _INK, font)
    for place, name in enumerate(names):
        middle = place * _CELL + _CELL // 2
        pen.text((room - _MARGIN // 2, top + middle), name, _INK, font, anchor="rm")
        upright = _upright(name, font)
        picture.paste(upright, (room + middle - upright.width // 2, top - 6 - upright.height))
        for column, count in enumerate(confusion[place]):
            corner = (room + column * _CELL, top + place * _CELL)
            _draw_cell(pen, font, corner, count, sum(confusion[place]), right=column == place)
    picture.save(path, optimize=True)
    return True


def _draw_cell(
    pen: Any, font: Any, corner: tuple[int, int], count: int, whole: int, *, right: bool
) -> None:
    share = count / whole if whole else 0.0
    colour = _RIGHT if right else _WRONG
    shade = tuple(round(p + (c - p) * share) for p, c in zip(_PAPER, colour, strict=True))
    x, y = corner
    pen.rectangle((x, y, x + _CELL - 1, y + _CELL - 1), fill=shade, outline=_GRID)
    if count:
        dark = 0.5
        ink = _PAPER if share > dark else _INK
        pen.text((x + _CELL // 2, y + _CELL // 2), _compact(count), ink, font, anchor="mm")


def _upright(name: str, font: Any) -> Any:
    from PIL import Image, ImageDraw

    size = (int(font.getlength(name)) + 4, _FONT + 6)
    strip = Image.new("RGB", size, _PAPER)
    ImageDraw.Draw(strip).text((2, size[1] // 2), name, _INK, font, anchor="lm")
    return strip.rotate(90, expand=True)


def _short(label: str) -> str:
    plain = " ".join(label.split())
    return plain if len(plain) <= _LONGEST_LABEL else f"{plain[: _LONGEST_LABEL - 1]}…"


def _compact(count: int) -> str:
    thousand, many = 1_000, 10_000
    return f"{count / thousand:.0f}k" if count >= many else str(count)
