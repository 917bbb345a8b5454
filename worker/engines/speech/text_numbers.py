"""Numbers in English words. ``british`` puts "and" before tens and units: one hundred and five."""

from __future__ import annotations


def listed(text: str) -> list[str]:
    """The words of a table that is written as running text."""
    return text.split()


_ONES = listed("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen
""")
_TENS = listed("""
    _ _ twenty thirty forty fifty sixty seventy eighty ninety
""")
_SCALES = listed("""
    thousand million billion trillion quadrillion quintillion sextillion septillion octillion
    nonillion decillion
""")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_LARGEST = 10**36


def cardinal(number: int, *, british: bool = False) -> str:
    """1,024 is "one thousand twenty-four". From 10^36 on digit by digit."""
    if number < 0:
        return f"minus {cardinal(-number, british=british)}"
    if number >= _LARGEST:
        return digits(str(number))
    groups = []
    scale, rest = 0, number
    while rest:
        rest, group = divmod(rest, 1000)
        if group:
            groups.append(_group(group, scale, number, british))
        scale += 1
    return " ".join(reversed(groups)) or "zero"


def _group(group: int, scale: int, number: int, british: bool) -> str:
    words = _below_thousand(group, british)
    if scale:
        return f"{words} {_SCALES[scale - 1]}"
    joined = british and number > group and group < 100  # noqa: PLR2004
    return f"and {words}" if joined else words


def _below_thousand(number: int, british: bool) -> str:
    hundreds, rest = divmod(number, 100)
    spoken = [f"{_ONES[hundreds]} hundred"] if hundreds else []
    if hundreds and rest and british:
        spoken.append("and")
    if rest:
        spoken.append(_below_hundred(rest))
    return " ".join(spoken)


def _below_hundred(number: int) -> str:
    if number < len(_ONES):
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens]}-{_ONES[ones]}" if ones else _TENS[tens]


def ordinal(number: int, *, british: bool = False) -> str:
    """21 is "twenty-first"."""
    words = cardinal(number, british=british)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    return words[:cut] + _as_ordinal(words[cut:])


def _as_ordinal(word: str) -> str:
    if word in _ORDINALS:
        return _ORDINALS[word]
    return f"{word[:-1]}ieth" if word.endswith("y") else f"{word}th"


def digits(text: str) -> str:
    """Each digit by itself; anything else is left out."""
    return " ".join(_ONES[int(digit)] for digit in text if digit in "0123456789")


def decimal(text: str, *, british: bool = False) -> str:
    """A written number, with commas, a sign or a fraction: "-1,234.50" and ".5" too."""
    sign = "minus " if text[:1] in "-−" else ""
    whole, _, fraction = text.lstrip("+-−").replace(",", "").partition(".")
    if len(whole) > 1 and whole[0] == "0" and not fraction:
        return sign + digits(whole)
    words = cardinal(int(whole or "0"), british=british)
    return f"{sign}{words} point {digits(fraction)}" if fraction else sign + words


def year(number: int, *, british: bool = False) -> str:
    """1984 is "nineteen eighty-four", 1905 "nineteen oh five", 2007 "two thousand seven"."""
    century, rest = divmod(number, 100)
    if number < 1000 or number % 1000 < 10 or number >= 10_000:  # noqa: PLR2004
        return cardinal(number, british=british)
    if rest == 0:
        return f"{_below_hundred(century)} hundred"
    ending = f"oh {_ONES[rest]}" if rest < 10 else _below_hundred(rest)  # noqa: PLR2004
    return f"{_below_hundred(century)} {ending}"


def decade(number: int) -> str:
    """1990 is "nineteen nineties", 80 "eighties", 1900 "nineteen hundreds"."""
    words = year(number) if number > 99 else cardinal(number)  # noqa: PLR2004
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def fraction(above: int, below: int) -> str:
    """3/4 is "three quarters", 1/2 "one half", 7/100 "seven hundredths"."""
    names = {2: ("half", "halves"), 4: ("quarter", "quarters")}
    part = ordinal(below).removeprefix("one ")
    one, many = names.get(below, (part, f"{part}s"))
    return f"{cardinal(above)} {one if above == 1 else many}"


def in_pairs(text: str) -> str:
    """As in names of rooms and machines: 747 is "seven forty-seven", 101 "one oh one"."""
    number = int(text)
    hundreds, rest = divmod(number, 100)
    if not hundreds or hundreds > 99 or (rest == 0 and hundreds % 10 == 0):  # noqa: PLR2004
        return cardinal(number)
    ending = "hundred" if not rest else f"oh {_ONES[rest]}" if rest < 10 else _below_hundred(rest)  # noqa: PLR2004
    return f"{_below_hundred(hundreds)} {ending}"


def roman(text: str) -> int | None:
    """XIV is 14; None for what is not a Roman numeral in its usual form."""
    total = 0
    for place, letter in enumerate(text):
        value = _ROMAN.get(letter, 0)
        following = _ROMAN.get(text[place + 1], 0) if place + 1 < len(text) else 0
        total += -value if value < following else value
    return total if total and _to_roman(total) == text else None


def _to_roman(number: int) -> str:
    pairs = zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    )
    out = ""
    for value, letters in pairs:
        count, number = divmod(number, value)
        out += letters * count
    return out
