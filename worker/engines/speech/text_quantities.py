"""Money, measures, ranges, fractions, phone numbers and plain numbers in English words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from worker.engines.speech.text_numbers import (
    cardinal,
    decimal,
    digits,
    fraction,
    in_pairs,
    ordinal,
)
from worker.engines.speech.text_tables import (
    CURRENCIES,
    CURRENCY_CODES,
    JOINT,
    MAGNITUDES,
    UNICODE_FRACTIONS,
    UNITS,
)


def any_of(words: Iterable[str]) -> str:
    """A pattern for one of the words, the longest first."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_BIG = r"thousand|million|billion|trillion"
_MONEY = re.compile(
    rf"(?P<sign>[-−]\s?)?(?<![\w])(?P<mark>{any_of(CURRENCIES)})\s?(?P<amount>{_NUMBER})"
    rf"(?:\s?[-–—]\s?(?:{any_of(CURRENCIES)})?(?P<upper>{_NUMBER}))?"
    rf"(?:\s?(?P<big>{_BIG})\b|(?P<letter>{any_of(MAGNITUDES)})\b)?",
    re.IGNORECASE,
)
_CODE = any_of(CURRENCY_CODES)
_CODE_FIRST = re.compile(rf"\b(?P<code>{_CODE})\s?(?={_NUMBER})")
_CODE_LAST = re.compile(
    rf"(?<![\w.,])(?P<amount>{_NUMBER}(?:\s?(?:{_BIG}))?)\s?(?P<code>{_CODE})\b"
)
_CENTS = re.compile(r"(?<![\w.,])(?P<amount>\d+)\s?(?P<mark>¢|p\b(?!\.))")
_RANGE_UNIT = re.compile(
    rf"(?<![\w.,/-])(?P<first>{_NUMBER})\s?[-–—]\s?(?P<second>{_NUMBER})"
    rf"\s?(?P<unit>{any_of(UNITS)})(?![\w/])"
)
_UNIT = re.compile(
    rf"(?P<sign>(?<![\w)])[-−])?(?<![\w.,])(?P<amount>{_NUMBER})(?P<gap>[ -]|\u00a0)?"
    rf"(?P<unit>{any_of(UNITS)})(?![\w/])"
)
_AMBIGUOUS = frozenset(["s", "h", "m", "g", "l", "L", "V", "W", "MP"])
"""Units that no hyphen joins to their number."""
_RANGE = re.compile(
    rf"(?<![\w.,/–-])(?P<first>{_NUMBER})\s?[-–—]\s?(?P<second>{_NUMBER})(?![\w/–-]|[.,]\d)"
)
_PHONE = re.compile(
    r"(?<![\w.,-])(?P<number>\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}"
    r"|(?:\(\d{3}\)\s?|\d{3}[-. ])\d{3}[-. ]\d{4}|\d{3}-\d{4})(?![\w-]|[.,]\d)"
)
_MIXED = re.compile(
    r"(?<![\w.,/])(?P<whole>\d+)[ -](?P<above>\d{1,2})/(?P<below>\d{1,3})(?![\w/]|\.\d)"
)
_FRACTION = re.compile(r"(?<![\w.,/])(?P<above>\d{1,3})/(?P<below>\d{1,4})(?![\w/]|\.\d)")
_GLYPH = re.compile(rf"(?P<whole>\d+)?\s?(?P<glyph>[{''.join(UNICODE_FRACTIONS)}])")
_ORDINAL = re.compile(r"(?<![\w.,])(?P<number>\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b")
_PLURAL = re.compile(r"(?<![\w.,])(?P<number>\d+)['’]?s\b")
_SIZE = re.compile(rf"(?<![\w.,])(?P<first>{_NUMBER})(?:\s?x\s?|×)(?P<second>{_NUMBER})(?!\w)")
_NAMED = re.compile(
    r"\b(?P<before>Room|Flight|Route|Highway|Interstate|Boeing|Airbus|Suite|Apartment|Area|Bus|Gate|"
    r"Channel|Building|[Rr]oom|[Ff]light|[Rr]oute|[Hh]ighway) (?P<number>\d{3,4})(?![\w,.]\d|\w)"
)
_DIALED = re.compile(r"\b(?P<before>[Cc]all|[Dd]ial|[Pp]ress) (?P<number>\d{3,})(?![\w,.]\d|\w)")
_ADDRESS = re.compile(r"(?<![\w.,])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_FEET = re.compile(r"(?<![\w.,])(?P<feet>\d+)['′]\s?(?P<inches>\d{1,2})[\"″](?!\w)")
_FACTOR = re.compile(rf"(?<![\w.,])(?P<first>{_NUMBER})[x×](?!\w)")
_BIG_LETTER = re.compile(rf"(?<![\w.,])(?P<amount>{_NUMBER})(?P<letter>[kKMB]|bn|mn|tn)(?!\w)")
_VERSION = re.compile(r"(?<![\w.,])(?P<mark>v)?(?P<numbers>\d+(?:\.\d+){2,})(?!\w)")
_VERSION_LETTER = re.compile(r"\bv(?=\d)")
_SIGNED = re.compile(rf"(?<![\w)\].,])(?P<sign>[-−+])(?P<number>{_NUMBER}|\.\d+)(?![\w])")
_PLAIN = re.compile(rf"{_NUMBER}|\.\d+")
_LETTER = re.compile(r"(?<![\w'’])(?P<letter>[A-Z])-?(?=\d)")
_TOUCHING = re.compile(r"(?<=[A-Za-z])-?(?=\d)|(?<=\d)-?(?=[A-Za-z])")
_LONGEST_READ_AS_ONE = 15
_SPECIAL_FRACTIONS = {"24/7": "twenty-four seven", "9/11": "nine eleven", "50/50": "fifty-fifty"}


def read_phones(text: str) -> str:
    """Digit by digit, with a comma between groups."""

    def spoken(found: re.Match[str]) -> str:
        groups = re.findall(r"\d+", found["number"])
        plus = "plus " if found["number"].startswith("+") else ""
        return plus + ", ".join(digits(group) for group in groups)

    return _PHONE.sub(spoken, text)


def read_money(text: str, *, british: bool) -> str:
    """$3.5bn, €12.99, £1,000, 5 USD, 99p."""

    def money(found: re.Match[str]) -> str:
        names = CURRENCIES[found["mark"].upper()]
        big = found["big"] or MAGNITUDES.get((found["letter"] or "").lower())
        sign = "minus " if found["sign"] else ""
        amount = found["amount"].replace(",", "")
        if found["upper"]:
            upper = decimal(found["upper"], british=british)
            words = f"{decimal(amount, british=british)} to {upper}"
            return f"{sign}{words}{f' {big}' if big else ''} {names[1]}"
        if big:
            return f"{sign}{decimal(amount, british=british)} {big} {names[1]}"
        return sign + _amount(amount, names, british)

    def code_last(found: re.Match[str]) -> str:
        return f"{CURRENCY_CODES[found['code']]}{found['amount']}"

    def cents(found: re.Match[str]) -> str:
        one, many = ("penny", "pence") if found["mark"] == "p" else ("cent", "cents")
        number = int(found["amount"])
        return f"{cardinal(number, british=british)} {one if number == 1 else many}"

    text = _CODE_FIRST.sub(lambda found: CURRENCY_CODES[found["code"]], text)
    text = _CODE_LAST.sub(code_last, text)
    return _CENTS.sub(cents, _MONEY.sub(money, text))


def _amount(amount: str, names: tuple[str, str, str, str], british: bool) -> str:
    one, many, small_one, small_many = names
    whole, _, rest = amount.partition(".")
    if rest and len(rest) != 2:  # noqa: PLR2004 - not cents
        return f"{decimal(amount, british=british)} {many}"
    number, small = int(whole), int(rest or 0)
    large = f"{cardinal(number, british=british)} {one if number == 1 else many}"
    if not small:
        return large
    little = f"{cardinal(small)} {small_one if small == 1 else small_many}"
    return f"{large} and {little}" if number else little


def read_units(text: str, *, british: bool) -> str:
    """5 km/h, -3 °C, 2.5 GB, 10-15 kg, 99 %."""

    def ranged(found: re.Match[str]) -> str:
        first, second = (decimal(found[name], british=british) for name in ("first", "second"))
        return f"{first} to {second} {UNITS[found['unit']][1]}"

    def unit(found: re.Match[str]) -> str:
        plural = found["unit"] == "s" and not found["gap"] and len(found["amount"]) > 2  # noqa: PLR2004
        if plural or (found["unit"] in _AMBIGUOUS and found["gap"] == "-"):
            return found[0]
        one, many = UNITS[found["unit"]]
        sign = "minus " if found["sign"] else ""
        single = found["amount"] == "1" or found["gap"] == "-"
        return f"{sign}{decimal(found['amount'], british=british)} {one if single else many}"

    return _UNIT.sub(unit, _RANGE_UNIT.sub(ranged, text))


def read_fractions(text: str, *, british: bool) -> str:
    """1/2, 2 3/4, ⅝."""

    def mixed(found: re.Match[str]) -> str:
        words = _fraction(int(found["above"]), int(found["below"]))
        return f"{cardinal(int(found['whole']), british=british)} and {_article(words)}"

    def plain(found: re.Match[str]) -> str:
        if found[0] in _SPECIAL_FRACTIONS:
            return _SPECIAL_FRACTIONS[found[0]]
        return _fraction(int(found["above"]), int(found["below"]))

    def glyph(found: re.Match[str]) -> str:
        words = fraction(*UNICODE_FRACTIONS[found["glyph"]])
        if not found["whole"]:
            return words
        return f"{cardinal(int(found['whole']), british=british)} and {_article(words)}"

    return _FRACTION.sub(plain, _MIXED.sub(mixed, _GLYPH.sub(glyph, text)))


def _fraction(above: int, below: int) -> str:
    proper = 0 < above < below and (below <= 20 or below in (50, 100, 1000))  # noqa: PLR2004
    return fraction(above, below) if proper else f"{cardinal(above)} over {cardinal(below)}"


def _article(words: str) -> str:
    return f"a {words[4:]}" if words.startswith("one ") else words


def read_numbers(text: str, *, british: bool) -> str:
    """All digits that are left: ranges, ordinals, versions, products, signs, plain numbers."""

    def say(number: str) -> str:
        bare = number.replace(",", "")
        if "." not in bare and len(bare) > _LONGEST_READ_AS_ONE:
            return digits(bare)
        return decimal(number, british=british)

    def signed(found: re.Match[str]) -> str:
        return f"{'plus' if found['sign'] == '+' else 'minus'} {say(found['number'])}"

    def span(found: re.Match[str]) -> str:
        return f"{say(found['first'])} to {say(found['second'])}"

    def size(found: re.Match[str]) -> str:
        numbers = found["first"], found["second"]
        large = all(number.isdigit() and len(number) > 2 for number in numbers)  # noqa: PLR2004
        return " by ".join(in_pairs(number) if large else say(number) for number in numbers)

    def version(found: re.Match[str]) -> str:
        numbers = " point ".join(cardinal(int(part)) for part in found["numbers"].split("."))
        return f"version {numbers}" if found["mark"] else numbers

    def whole(found: re.Match[str]) -> int:
        return int(found["number"].replace(",", ""))

    text = _read_names(text)
    text = _VERSION.sub(version, text)
    text = _VERSION_LETTER.sub("version ", text)
    text = _ORDINAL.sub(lambda found: ordinal(whole(found), british=british), text)
    text = _PLURAL.sub(lambda found: _plural(cardinal(whole(found))), text)
    text = _BIG_LETTER.sub(
        lambda found: f"{say(found['amount'])} {MAGNITUDES[found['letter'].lower()]}", text
    )
    text = _SIZE.sub(size, _RANGE.sub(span, text))
    text = _FACTOR.sub(lambda found: f"{say(found['first'])} times", text)
    text = _SIGNED.sub(signed, text)
    text = _TOUCHING.sub(" ", _LETTER.sub(rf"\g<letter>{JOINT} ", text))
    return _PLAIN.sub(lambda found: say(found[0]), text)


def _read_names(text: str) -> str:
    """Numbers that name something: rooms, flights, machines, heights."""

    def feet(found: re.Match[str]) -> str:
        one = found["feet"] == "1"
        inches = int(found["inches"])
        ending = f" {cardinal(inches)} inch{'' if inches == 1 else 'es'}" if inches else ""
        return f"{cardinal(int(found['feet']))} {'foot' if one else 'feet'}{ending}"

    text = _FEET.sub(feet, text)
    text = _NAMED.sub(lambda found: f"{found['before']} {in_pairs(found['number'])}", text)
    text = _DIALED.sub(lambda found: f"{found['before']} {digits(found['number'])}", text)
    return _ADDRESS.sub(lambda found: " dot ".join(map(in_pairs, found[0].split("."))), text)


def _plural(words: str) -> str:
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"
