"""What may be asked for an icon: its name, in the many ways that prompts say it.

Names are memorised, phrases around them are to be ignored. So an icon is seen under its bare name,
inside phrases of everyday prompts, with words that mean nothing here, and with no prompt at all
(which is what guidance compares with).
"""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Sequence

PHRASES = (
    "a picture of {a}",
    "a photo of {a}",
    "an image of {a}",
    "an icon of {a}",
    "an emoji of {a}",
    "a drawing of {a}",
    "an illustration of {a}",
    "a flat illustration of {a}",
    "a simple picture of {a}",
    "a colourful icon of {a}",
    "a clean vector icon of {a}",
    "a sticker of {a}",
    "a logo with {a}",
    "a banner with {a}",
    "a poster showing {a}",
    "clip art of {a}",
    "draw {a}",
    "please show me {a}",
    "show {many}",
    "a picture of {many}",
    "an advertisement with {a}",
    "an ad for {many}",
    "{many} on sale",
    "a product picture of {a}",
    "the best {many} in town",
    "a thumbnail for a story about {many}",
    "a news picture of {a}",
    "an article about {many}",
    "{bare} icon",
    "{bare} emoji",
    "{bare} symbol",
    "{bare} picture",
    "icon: {bare}",
    "{many}",
    "{a}",
    "the {bare}",
    "one {bare}",
    "this is {a}",
)
ENDINGS = (
    "on a white background",
    "in a flat style",
    "vector art",
    "for a headline",
    "for a campaign",
    "for our new product",
    "in bright colours",
    "simple and clean",
    "minimal design",
    "for the news",
    "digital art",
    "high quality",
    "isolated",
    "centered",
    "for social media",
    "with a limited offer",
)
_FILLER_TEXT = (
    "new today breaking report daily weekly summer winter spring autumn market price offer deal "
    "save free shop store brand launch event story city country people world family life time "
    "year week business company economy election government minister science study health "
    "travel sport team season final match winner record music film festival fashion beauty "
    "style modern classic fresh tasty delicious great good beautiful cute happy little large "
    "cool amazing premium quality local online website mobile app digital technology design "
    "studio lighting background scene closeup realistic cartoon render for with near from about "
    "over under their your our my and or very "
)
FILLERS = tuple(_FILLER_TEXT.split())

_BARE = 0.7
_REORDERED = 0.05
_FILLED = 0.15
_ENDED = 0.3
_MOST_FILLERS = 4
_STRANGE = 0.2
_FILLED_BEHIND = 0.5


class Captions:
    """Draws captions. A name's words change places only where that names nothing else."""

    def __init__(self, names: Sequence[str]) -> None:
        kinds = Counter(tuple(sorted(name.split())) for name in names)
        self._reorderable = {
            name for name in names if " " in name and kinds[tuple(sorted(name.split()))] == 1
        }

    def draw(self, name: str, random: random.Random) -> str:
        """One caption for ``name``; the same for the same state of ``random``."""
        if random.random() < _BARE:
            return name
        words = name.split()
        if name in self._reorderable and random.random() < _REORDERED:
            random.shuffle(words)
        bare = " ".join(words)
        phrase = random.choice(PHRASES)
        caption = phrase.format(a=with_article(bare), many=plural(bare), bare=bare)
        if random.random() < _ENDED:
            caption = f"{caption}, {random.choice(ENDINGS)}"
        return _filled(caption, random) if random.random() < _FILLED else caption


def _filled(caption: str, random: random.Random) -> str:
    parts = [_filler(random) for _ in range(random.randint(1, _MOST_FILLERS))]
    if random.random() < _FILLED_BEHIND:
        return f"{caption} {' '.join(parts)}"
    return f"{' '.join(parts)} {caption}"


def _filler(random: random.Random) -> str:
    """Mostly a common word; now and then letters that no name is made of, as in foreign words."""
    if random.random() < _STRANGE:
        return "".join(random.choices(string.ascii_lowercase, k=random.randint(3, 8)))
    return random.choice(FILLERS)


def with_article(name: str) -> str:
    """``a red heart``, ``an anchor``."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """``red hearts``: the last word in the plural, by the plain rules of spelling."""
    if not name[-1].isalpha() or name.endswith("s"):
        return name
    if name.endswith(("x", "ch", "sh", "z")):
        return f"{name}es"
    if name.endswith("y") and name[-2:-1] not in set("aeiou"):
        return f"{name[:-1]}ies"
    return f"{name}s"


def corpus(names: Sequence[str]) -> list[str]:
    """Every text that the vocabulary is made from: all words that captions use are in it."""
    phrases = [phrase.format(a="", many="", bare="") for phrase in PHRASES]
    return [*names, *map(plural, names), *phrases, "a an the", *ENDINGS, *FILLERS]
