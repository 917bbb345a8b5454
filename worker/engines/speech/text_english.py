"""English texts as they are read aloud: no digits, no abbreviations, no signs are left.

Words that a voice reads well by itself are left alone. Everything here is done sentence by
sentence and by rule; where a writing can be read in two ways, the reading is the one that the
tests in ``test_speech_text.py`` show.
"""

from __future__ import annotations

import re
import unicodedata

from worker.engines.speech.text_addresses import read_addresses
from worker.engines.speech.text_dates import read_dates, read_years
from worker.engines.speech.text_numbers import cardinal, ordinal, roman
from worker.engines.speech.text_quantities import (
    any_of,
    read_fractions,
    read_money,
    read_numbers,
    read_phones,
    read_units,
)
from worker.engines.speech.text_tables import (
    ABBREVIATIONS,
    BEFORE_NUMBERS,
    JOINT,
    NUMBERED,
    READ_AS_WORDS,
    REGAL,
    SYMBOLS,
)

_MARKDOWN = [
    (re.compile(r"\[([^\]\n]+)\]\((?:[^()\n]*)\)"), r"\1"),
    (re.compile(r"^\s{0,3}#{1,6}\s+"), ""),
    (re.compile(r"^\s*[-*•]\s+"), ""),
    (re.compile(r"(\*\*|__|`+)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*]+?)(?<=\S)\*(?![\w*])"), r"\1"),
]
_ABBREVIATION = re.compile(rf"(?<![\w.])(?:{any_of(ABBREVIATIONS)})(?!\w)")
_SAINT = re.compile(r"(?<![\w.])St\.? (?=[A-Z][a-z])")
_STREET = re.compile(r"(?<=[a-z]) St\.?(?=[\s,.;:!?)]|$)")
_BEFORE_NUMBER = re.compile(rf"(?<![\w.])(?:{any_of(BEFORE_NUMBERS)})\s?(?=\d)")
_HASH_NUMBER = re.compile(r"(?<![\w&])#(?=\d)")
_HASHTAG = re.compile(r"(?<!\w)#(?=[A-Za-z])")
_LANGUAGES = re.compile(r"\b(?:C\+\+|[CF]#)(?!\w)")
_LANGUAGE_NAMES = {"C++": "C plus plus", "C#": "C sharp", "F#": "F sharp"}
_DOTTED = re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,}(?!\w)")
_DEGREE = re.compile(r"\b(?:Ph\.?D|M\.?B\.?A|B\.?Sc|M\.?Sc)\b\.?")
_CAPITALS = re.compile(r"(?<![\w.])(?P<letters>[A-Z]{2,6})(?P<ending>['’]?s)?(?!\w)")
_NUMBERED = [*NUMBERED, *map(str.lower, NUMBERED)]
_ROMAN = re.compile(
    rf"\b(?P<before>{any_of([*_NUMBERED, *REGAL])}) (?P<numeral>[IVX]|[IVXLC]{{2,}})\b"
    r"(?!['’]\w{2})"
)
_FIRST = re.compile(r"\s+(?:of|was|became|ruled|reigned|died|and)\b|[,.;:!?)]|['’]s\b|\s*$")
_SIGN = re.compile(f"[{re.escape(''.join(SYMBOLS))}]")
_HEART = re.compile(r"<3")
_SLASH = re.compile(r"(?<=\w)/(?=\w)")
_INNER_DOT = re.compile(r"(?<=[A-Za-z]{2})\.(?=[a-z]{1,4}\b)")
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE_MARK = re.compile(r"\s+([,.;:!?])")
_DASH = re.compile(r"\s+[-–—]+\s+|\s*—\s*|(?<=[A-Za-z])\s*–\s*(?=[A-Za-z])|--+")
_SHOUTED_LETTERS = 12
_VOWELS = frozenset("AEIOUY")


def spell_out(text: str, *, british: bool = False, dotted: bool = False) -> str:
    """The words that are said for one sentence.

    ``british`` reads 105 as "one hundred and five" and 03/04 as the third of April. Letters said
    by their names come as ``F B I``, or with ``dotted`` as ``F.B.I.``
    """
    text = _tidied(text)
    text = read_addresses(text)
    text = _LANGUAGES.sub(lambda found: _LANGUAGE_NAMES[found[0]], text)
    text = _HASH_NUMBER.sub("number ", _HASHTAG.sub("hashtag ", text))
    text = _BEFORE_NUMBER.sub(lambda found: f"{BEFORE_NUMBERS[found[0].strip()]} ", text)
    text = read_phones(text)
    text = read_dates(text, british=british)
    text = read_money(text, british=british)
    text = read_units(text, british=british)
    text = read_years(text, british=british)
    text = _ROMAN.sub(_roman, text)
    text = _abbreviations(text)
    text = read_fractions(text, british=british)
    text = read_numbers(text, british=british)
    text = _capitals(text)
    return _finished(_signs(text), dotted=dotted)


def _tidied(text: str) -> str:
    text = unicodedata.normalize("NFC", text).translate(_PLAIN_SIGNS)
    text = "".join(" " if sign < " " else sign for sign in text)
    text = "".join(sign for sign in text if unicodedata.category(sign) not in _UNSPOKEN)
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return _SPACES.sub(" ", text).strip()


_PLAIN_SIGNS = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2011": "-", "\u2010": "-", "μ": "µ"})
_UNSPOKEN = frozenset(["Cc", "Cf", "Cs", "Co", "Cn"])


def _abbreviations(text: str) -> str:
    text = _STREET.sub(" Street", _SAINT.sub("Saint ", text))
    text = _DEGREE.sub(lambda found: _letters(found[0].replace(".", "").upper()), text)

    def written_out(found: re.Match[str]) -> str:
        ends = found[0].endswith(".") and found.end() == len(found.string.rstrip("\"'”’)"))
        return ABBREVIATIONS[found[0]] + ("." if ends else "")

    def dotted(found: re.Match[str]) -> str:
        ends = found.end() == len(found.string.rstrip("\"'”’)"))
        return _letters(found[0].replace(".", "").upper()) + ("." if ends else "")

    return _DOTTED.sub(dotted, _ABBREVIATION.sub(written_out, text))


def _roman(found: re.Match[str]) -> str:
    number = roman(found["numeral"])
    if number is None:
        return found[0]
    if found["numeral"] == "I" and not _FIRST.match(found.string[found.end() :]):
        return found[0]
    if found["before"] in REGAL:
        return f"{found['before']} the {ordinal(number)}"
    return f"{found['before']} {cardinal(number)}"


def _capitals(text: str) -> str:
    letters = [sign for sign in text.replace(JOINT, "") if sign.isalpha()]
    shouted = (
        len(letters) > _SHOUTED_LETTERS and sum(map(str.isupper, letters)) > len(letters) * 0.7
    )
    if shouted:
        return re.sub(r"\b[A-Z]{2,}\b", lambda found: _lowered(found[0]), text)

    def spelled(found: re.Match[str]) -> str:
        word, ending = found["letters"], found["ending"] or ""
        if word in READ_AS_WORDS:
            return found[0]
        long = len(word) > 3 and _pronounceable(word)  # noqa: PLR2004
        return found[0] if long else _letters(word) + ending.replace("’", "'")

    return _CAPITALS.sub(spelled, text)


def _lowered(word: str) -> str:
    return word if word in READ_AS_WORDS or not _VOWELS & set(word) else word.lower()


def _pronounceable(word: str) -> bool:
    """Whether vowels and consonants take turns as in a word that is merely written large."""
    return re.search(r"[^AEIOUY]{3}|[AEIOU]{3}", word) is None and bool(_VOWELS & set(word))


def _letters(word: str) -> str:
    return "".join(letter + JOINT for letter in word)


def _signs(text: str) -> str:
    text = _HEART.sub("", text)
    text = _DASH.sub(", ", text)
    text = _INNER_DOT.sub(" dot ", text.replace("and/or", "and or"))
    text = _SLASH.sub(" slash ", text)
    return _SIGN.sub(lambda found: f" {SYMBOLS[found[0]]} ", text)


def _finished(text: str, *, dotted: bool) -> str:
    if dotted:
        text = re.sub(rf"{JOINT}\.", JOINT, text)
        text = re.sub(rf"{JOINT}(?='s|s\b)", ".", text).replace(JOINT, ".")
    else:
        text = re.sub(rf"{JOINT}(?=[A-Za-z]{JOINT})", " ", text).replace(JOINT, "")
    text = "".join(sign for sign in text if unicodedata.category(sign) not in ("So", "Sk"))
    text = _SPACE_BEFORE_MARK.sub(r"\1", _SPACES.sub(" ", text))
    return re.sub(r",(?:\s*,)+", ",", text).strip(" ,")
