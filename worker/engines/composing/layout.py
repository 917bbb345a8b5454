"""Where things go in a frame of any shape, in pixels. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_TALL = 1.2
_LEAST_FONT = 11


@dataclass(frozen=True, slots=True)
class Layout:
    """Margins and font sizes that suit the frame: what platforms lay over a tall video's lower
    edge, and what old screens cut off, stays free of text."""

    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def tall(self) -> bool:
        return self.height > _TALL * self.width

    @property
    def wide(self) -> bool:
        return self.width > _TALL * self.height

    @property
    def caption_font(self) -> int:
        part = 0.052 * self.width if self.tall else 0.048 * min(self.width, self.height)
        return max(_LEAST_FONT, round(part))

    @property
    def caption_width(self) -> int:
        """Most pixels of a line."""
        return round(self.width * (0.74 if self.wide else 0.82))

    @property
    def caption_bottom(self) -> int:
        """The lower edge of captions."""
        return round(self.height * (0.83 if self.tall else 0.935))

    @property
    def title_bottom(self) -> int:
        """The lower edge of titles and lower thirds: above two lines of captions."""
        return self.caption_bottom - round(3.9 * self.caption_font)

    @property
    def margin(self) -> int:
        """Left and right of titles, logos and lower thirds."""
        return round(self.width * 0.06)

    @property
    def top(self) -> int:
        return round(self.height * (0.07 if self.tall else 0.06))

    @property
    def logo_box(self) -> tuple[int, int]:
        """The most a logo covers."""
        return round(self.width * (0.24 if self.tall else 0.15)), round(self.height * 0.085)

    @property
    def card_font(self) -> int:
        """Of a title that has a card for itself."""
        return round(0.082 * self.width if self.tall else 0.095 * self.height)

    @property
    def card_box(self) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the words on a card."""
        width = self.width - 2 * self.margin
        return self.margin, self.top, width, self.title_bottom - self.top
