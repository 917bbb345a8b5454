"""Titles, lower thirds, logos and captions over a scene."""

from __future__ import annotations

from PIL import Image, ImageChops

from worker.engines.composing.cues import MOST_LINES, Break, Cue
from worker.engines.composing.drawing import Colour, Layer, plate, rounded
from worker.engines.composing.fonts import Fonts
from worker.engines.composing.layout import Layout
from worker.engines.composing.lettering import WHITE, Lines, boxed, broken, set_lines, shadowed
from worker.engines.composing.timeline import eased

Box = tuple[int, int, int, int]

_ARRIVE_SECONDS = 0.55
_TITLE_AT = 0.25
_TITLE_SECONDS = 4.5
_NAME_AT = 0.5
_NAME_SECONDS = 6.0
_LOGO_OPACITY = 0.92


def caption_break(layout: Layout, fonts: Fonts) -> Break:
    """How captions are cut into lines in this frame."""

    def cut(text: str) -> list[str]:
        text = fonts.writable(text)
        return broken(text, fonts.font(text, layout.caption_font), layout.caption_width)

    return cut


def caption(cue: Cue, layout: Layout, fonts: Fonts) -> Layer:
    """The box of a cue, centred above the lower margin."""
    font = fonts.font(" ".join(cue.lines), layout.caption_font)
    picture = boxed(Lines(cue.lines[:MOST_LINES], font))
    left = (layout.width - picture.width) // 2
    return Layer(picture, left, layout.caption_bottom - picture.height)


def presence(seconds: float, at: float, until: float) -> float:
    """0..1: how far something has arrived that comes at ``at`` and has left at ``until``."""
    arriving = (seconds - at) / _ARRIVE_SECONDS
    leaving = (until - seconds) / _ARRIVE_SECONDS
    return eased(min(arriving, leaving, 1.0))


def _stay(at: float, length: float, scene_seconds: float) -> float:
    """When something that should be seen for ``length`` leaves; never, when that is near the end
    of its scene."""
    leaves = at + length
    return leaves if leaves + 1.5 < scene_seconds else float("inf")


class Headline:
    """A scene's title over its picture: rises into place beside a bright bar, and leaves."""

    def __init__(
        self, text: str, layout: Layout, fonts: Fonts, colour: Colour, seconds: float
    ) -> None:
        size = round(layout.caption_font * 1.55)
        lines = set_lines(text, fonts, size, layout.width - 3 * layout.margin, 2)
        bar = max(3, size // 6)
        top = layout.title_bottom - lines.height
        self._words = _placed(lines, layout.margin + 3 * bar, top)
        self._bar = Layer(plate((bar, lines.height), bar // 2, colour, 1.0), layout.margin, top)
        self._scrim = _scrim(layout)
        self._rise = size * 0.5
        self._until = _stay(_TITLE_AT, _TITLE_SECONDS, seconds)

    def draw(self, frame: Image.Image, seconds: float) -> None:
        """``seconds`` from the start of the scene."""
        part = presence(seconds, _TITLE_AT, self._until)
        self._scrim.lay_over(frame, part)
        self._bar.lay_over(frame, part)
        self._words.lay_over(frame, part, down=self._rise * (1 - part))


def _scrim(layout: Layout) -> Layer:
    """Darkness that grows towards the lower edge, under text."""
    height = round(layout.height * 0.6)
    ramp = Image.linear_gradient("L").resize((layout.width, height))
    picture = Image.new("RGBA", ramp.size, (0, 0, 0, 0))
    picture.putalpha(ramp.point([round(value * 0.62) for value in range(256)]))
    return Layer(picture, 0, layout.height - height)


class TitleCard:
    """Large words on a card: a bar, the title, a line below it."""

    def __init__(
        self,
        title: str,
        subtitle: str | None,
        *,
        box: Box,
        size: int,
        most: int,
        fonts: Fonts,
        colour: Colour,
    ) -> None:
        """``box`` is (left, top, width, height), in whose middle the words stand; ``size`` the
        font's, ``most`` the title's lines."""
        left, top, width, height = box
        lines = set_lines(title, fonts, size, width, most)
        below = set_lines(subtitle, fonts, round(size * 0.5), width, 2) if subtitle else None
        used = lines.height + (below.height + size // 3 if below else 0)
        top += max(size // 2, (height - used) // 2)
        self._rise = size * 0.35
        bar = (round(size * 1.6), max(3, size // 9))
        self._bar = plate(bar, bar[1] // 2, colour, 1.0)
        self._bar_place = (left, top - round(size * 0.5))
        self._words = _placed(lines, left, top)
        self._below = None
        if below:
            place = top + lines.height + size // 3
            self._below = _placed(below, left, place, (214, 222, 232))

    def draw(self, frame: Image.Image, seconds: float) -> None:
        """``seconds`` from the start of the scene; the title is there from the first moment, and
        settles."""
        part = 0.25 + 0.75 * presence(seconds, -0.1, float("inf"))
        grown = max(2, round(self._bar.width * part))
        Layer(self._bar.crop((0, 0, grown, self._bar.height)), *self._bar_place).lay_over(frame)
        self._words.lay_over(frame, part, down=self._rise * (1 - part))
        if self._below:
            late = presence(seconds, 0.25, float("inf"))
            self._below.lay_over(frame, late, down=self._rise * (1 - late))


def _placed(lines: Lines, left: int, top: int, colour: Colour = WHITE) -> Layer:
    """Words with a shadow, whose letters begin at (left, top)."""
    picture = shadowed(lines, colour)
    margin = (picture.height - lines.height) // 2
    return Layer(picture, left - margin, top - margin)


class LowerThird:
    """Who speaks, or what this is: a plate that slides in from the left, and out again."""

    def __init__(
        self,
        name: str,
        detail: str | None,
        *,
        layout: Layout,
        fonts: Fonts,
        colour: Colour,
        seconds: float,
        at: float = 0.0,
        high: bool = False,
    ) -> None:
        """It comes soon after ``at`` in a video of ``seconds``; ``high`` puts it at the upper
        edge."""
        size = round(layout.caption_font * 1.2)
        width = round(layout.width * (0.5 if layout.wide else 0.76))
        head = set_lines(name, fonts, size, width, 1)
        below = set_lines(detail, fonts, round(size * 0.72), width, 1) if detail else None
        inner = max(head.width, below.width if below else 0)
        across, down, bar = round(size * 0.7), round(size * 0.35), max(3, size // 5)
        height = head.height + (below.height if below else 0) + 2 * down
        box = (inner + 2 * across + bar, height)
        picture = plate(box, round(size * 0.18), (10, 13, 20), 0.8)
        words = Image.new("RGBA", box, (255, 255, 255, 0))
        head.draw(words, bar + across, down)
        if below:
            below.draw(words, bar + across, down + head.height, (196, 206, 220))
        picture = Image.alpha_composite(picture, words)
        picture.paste(colour, (0, 0, bar, height))
        picture.putalpha(
            ImageChops.darker(picture.getchannel("A"), rounded(box, round(size * 0.18)))
        )
        top = layout.top if high else layout.title_bottom - height
        self._plate = Layer(picture, layout.margin, top)
        self._at = at + _NAME_AT
        self._until = _stay(self._at, _NAME_SECONDS, seconds)

    def draw(self, frame: Image.Image, seconds: float) -> None:
        """``seconds`` from the start of the video."""
        part = presence(seconds, self._at, self._until)
        away = self._plate.left + self._plate.picture.width
        self._plate.lay_over(frame, min(1.0, 2 * part), across=-away * (1 - part))


def logo_layer(logo: Image.Image, layout: Layout) -> Layer:
    """The logo in the upper right corner, within its box, its transparency kept."""
    small = logo.convert("RGBA")
    scale = min(layout.logo_box[0] / small.width, layout.logo_box[1] / small.height)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    small = small.resize(size, Image.Resampling.LANCZOS)
    faded = small.getchannel("A").point([round(v * _LOGO_OPACITY) for v in range(256)])
    small.putalpha(faded)
    return Layer(small, layout.width - layout.margin - size[0], layout.top)
