"""Text on pictures: broken into lines, and drawn with a box or a shadow behind it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter

from worker.engines.composing.drawing import Colour, plate
from worker.engines.composing.fonts import Font, Fonts

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
_LINE = 1.32
"""Height of a line, as a multiple of the font's size."""


def broken(text: str, font: Font, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` pixels, about equally long.

    It is broken between words, and inside one only where the word alone is too wide (or its script
    has no spaces).
    """
    lines = _greedy(text, font, width)
    low, high = width // max(1, len(lines)), width
    while high - low > max(2, width // 64):
        middle = (low + high) // 2
        tried = _greedy(text, font, middle)
        if len(tried) <= len(lines):
            lines, high = tried, middle
        else:
            low = middle
    return lines


def _greedy(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *full, line = _cut(word, font, width)
        lines += full
    return [*lines, line] if line else lines


def _cut(word: str, font: Font, width: int) -> list[str]:
    """A word in pieces that fit; usually one."""
    pieces, piece = [], ""
    for letter in word:
        if piece and font.getlength(piece + letter) > width:
            pieces.append(piece)
            piece = ""
        piece += letter
    return [*pieces, piece]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of one size, ready to be drawn."""

    lines: tuple[str, ...]
    font: Font

    @property
    def line_height(self) -> int:
        return round(self.font.size * _LINE)

    @property
    def width(self) -> int:
        return max((round(self.font.getlength(line)) for line in self.lines), default=0)

    @property
    def height(self) -> int:
        return self.line_height * len(self.lines)

    def draw(
        self, on: Image.Image, left: int, top: int, colour: Colour = WHITE, *, centred: bool = False
    ) -> None:
        """Writes them below each other; ``centred`` is around ``left`` + half of ``width``."""
        pen = ImageDraw.Draw(on)
        for number, line in enumerate(self.lines):
            middle = top + round((number + 0.5) * self.line_height)
            if centred:
                pen.text((left + self.width / 2, middle), line, colour, self.font, anchor="mm")
            else:
                pen.text((left, middle), line, colour, self.font, anchor="lm")


def set_lines(text: str, fonts: Fonts, size: int, width: int, most: int) -> Lines:
    """``text`` in at most ``most`` lines: smaller, by up to half, when it is too long; what still
    doesn't fit is cut with an ellipsis."""
    text = fonts.writable(text)
    smallest = min(size, max(8, size // 2))
    for tried in range(size, smallest - 1, -2):
        font = fonts.font(text, tried)
        if len(_greedy(text, font, width)) <= most:
            return Lines(tuple(broken(text, font, width)), font)
    font = fonts.font(text + "…", smallest)
    lines = _greedy(text, font, width)[:most]
    last = lines[-1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return Lines((*lines[:-1], last.rstrip() + "…"), font)


def boxed(lines: Lines, *, alpha: float = 0.62) -> Image.Image:
    """White centred lines on a dark box with round corners, RGBA."""
    size = lines.font.size
    across, down = round(size * 0.6), round(size * 0.22)
    box = (lines.width + 2 * across, lines.height + 2 * down)
    picture = plate(box, round(size * 0.35), (8, 10, 14), alpha)
    words = Image.new("RGBA", box, (*WHITE, 0))
    lines.draw(words, across, down, centred=True)
    return Image.alpha_composite(picture, words)


def shadowed(lines: Lines, colour: Colour = WHITE) -> Image.Image:
    """Left-aligned lines with a soft shadow, RGBA; a margin of half the font's size around."""
    margin = round(lines.font.size * 0.5)
    size = (lines.width + 2 * margin, lines.height + 2 * margin)
    shade = Image.new("L", size)
    ImageDraw.Draw(shade)
    dark = Image.new("RGBA", size, (*BLACK, 0))
    lines.draw(dark, margin, margin, BLACK)
    blurred = dark.getchannel("A").filter(ImageFilter.GaussianBlur(margin * 0.35))
    dark.putalpha(blurred.point([min(255, round(value * 1.1)) for value in range(256)]))
    words = Image.new("RGBA", size, (*colour, 0))
    lines.draw(words, margin, margin, colour)
    return Image.alpha_composite(dark, words)
