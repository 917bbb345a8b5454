"""URLs, e-mail addresses and host names in English words."""

from __future__ import annotations

import re

from worker.engines.speech.text_numbers import cardinal, digits
from worker.engines.speech.text_tables import ADDRESS_SIGNS, JOINT, SPOKEN_DOMAINS

_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']+[^\s<>\"'.,;:!?)\]}]", re.IGNORECASE)
_MAIL = re.compile(r"(?<![\w.])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-zA-Z]{2,}")
_ENDINGS = "com|org|net|io|ai|dev|gov|edu|info|app|co|uk|de|fr|eu|us|ca|au|tv|me|xyz|tech|cloud"
_HOST = re.compile(
    rf"(?<![\w@.])(?:[a-z0-9][a-z0-9-]*\.)+(?:{_ENDINGS})(?:/[\w./?=&%#~+-]*[\w/])?(?![\w@]|\.\w)",
    re.IGNORECASE,
)
_PART = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z\d]")
_LONGEST_NUMBER = 4


def read_addresses(text: str) -> str:
    """``jane.doe@example.co.uk`` is "jane dot doe at example dot co dot U K"."""
    text = _MAIL.sub(lambda found: _say(found[0]), text)
    text = _URL.sub(lambda found: _say(_shortened(found[0])), text)
    return _HOST.sub(lambda found: _say(_shortened(found[0])), text)


def _shortened(url: str) -> str:
    """Without what nobody says: the scheme, ``www.`` and a slash at the end."""
    url = re.sub(r"^https?://", "", url, flags=re.IGNORECASE)
    return re.sub(r"^www\.", "", url, flags=re.IGNORECASE).rstrip("/")


def _say(address: str) -> str:
    words = []
    parts: list[str] = _PART.findall(address)
    for place, part in enumerate(parts):
        after_dot = place > 0 and parts[place - 1] == "."
        words.append(_part(part, after_dot))
    return " ".join(words)


def _part(part: str, after_dot: bool) -> str:
    if part.isdecimal():
        leading = len(part) > 1 and part[0] == "0"
        return digits(part) if leading or len(part) > _LONGEST_NUMBER else cardinal(int(part))
    if part in ADDRESS_SIGNS:
        return ADDRESS_SIGNS[part]
    country = after_dot and len(part) == 2 and part.lower() not in SPOKEN_DOMAINS  # noqa: PLR2004
    return "".join(letter + JOINT for letter in part.upper()) if country else part
