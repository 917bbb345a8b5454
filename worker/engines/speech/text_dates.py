"""Dates, times and years in English words.

``22/11/2026`` and ``11/22/2026`` can be read in one way only. ``03/04/2026`` is March 4 in American
reading and the third of April in British. ``2026-11-22`` is ISO.
"""

from __future__ import annotations

import re

from worker.engines.speech.text_numbers import cardinal, decade, listed, ordinal, year
from worker.engines.speech.text_tables import JOINT, MONTH_NAMES, MONTHS

_MONTH = (
    r"(?P<month>January|February|March|April|May|June|July|August|September|October|November|"
    r"December|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
)
_YEAR = r"(?P<year>(?:1[0-9]|20)\d\d)"
_ISO = re.compile(r"(?<![\w-])(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?![\w-]|\.\d)")
_NUMERIC = re.compile(
    r"(?<![\w/.])(?P<first>\d{1,2})(?P<sign>[/.])(?P<second>\d{1,2})(?P=sign)"
    r"(?P<year>\d{4}|\d{2})(?![\w/]|\.\d)"
)
_MONTH_DAY = re.compile(
    rf"\b{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?![\d:]|[.,]\d)(?:,? {_YEAR})?\b"
)
_DAY_MONTH = re.compile(
    rf"\b(?P<the>the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?{_MONTH}(?:,? {_YEAR})?(?!\w)"
)
_MONTH_YEAR = re.compile(rf"\b{_MONTH},? {_YEAR}(?!\w)")
_TIME = re.compile(
    r"(?<![\w:.])(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d))?(?::(?P<second>[0-5]\d))?"
    r"(?:\s?(?P<half>[ap])\.?\s?m(?P<dot>\.)?(?!\w))?(?![\d:]|\.\d)",
    re.IGNORECASE,
)
_DECADE = re.compile(r"(?<![\w.])(?:(?P<long>1\d\d0|20\d0)|['’](?P<short>\d0))['’]?s\b")
_CONTEXT = (
    r"(?:[Ii]n|[Ss]ince|[Ff]rom|[Uu]ntil|[Tt]ill|[Dd]uring|[Ee]arly|[Ll]ate|[Mm]id|[Yy]ear|"
    r"[Cc]irca|[Bb]y|[Bb]efore|[Aa]fter|[Oo]f|[Aa]round|[Ss]pring|[Ss]ummer|[Aa]utumn|"
    r"[Ff]all|[Ww]inter|[Cc]opyright|©|[Bb]orn|[Dd]ied|[Aa]nd|[Tt]o|[Ss]eason|[Tt]he)"
)
_YEARS = re.compile(
    r"(?<![\w.,$€£¥-])(?P<first>1[1-9]\d\d|20\d\d)\s?[-–—]\s?(?P<second>1[1-9]\d\d|20\d\d|\d\d)"
    r"(?![\w-]|[.,]\d)"
)
_BARE_YEAR = re.compile(
    rf"(?P<context>\b{_CONTEXT}[ -])?(?<![\w.,$€£¥-])(?P<year>1\d\d\d|20\d\d)(?![\w%°-]|[.,]\d)"
    r"(?P<after>\s?[%°]|\s+[a-z]+)?"
)
_AFTER_A_YEAR = frozenset(
    listed("""
    and or but to in on at by for of the a an is was were will has had when while with without
    until as that which who he she it they we you i if because than from onwards after before
    through election elections season edition model budget report film movie song album world
""")
)
_LAST_HOUR, _MONTHS_IN_YEAR, _DAYS_IN_MONTH = 24, 12, 31


def read_dates(text: str, *, british: bool) -> str:
    """Dates with day, month or both, decades, and times of day."""

    def named(found: re.Match[str]) -> str:
        month = MONTH_NAMES[found["month"].lower().rstrip(".")]
        day = int(found["day"])
        if not 1 <= day <= _DAYS_IN_MONTH:
            return found[0]
        number = int(found["year"]) if found["year"] else None
        first = "the" in found.groupdict()
        return _date(day, month, number, day_first=first, british=british)

    def iso(found: re.Match[str]) -> str:
        return _numbers(found, int(found["day"]), int(found["month"]), british)

    def numeric(found: re.Match[str]) -> str:
        first, second = int(found["first"]), int(found["second"])
        day_first = first > _MONTHS_IN_YEAR or (british and second <= _MONTHS_IN_YEAR)
        day_first = day_first or found["sign"] == "."
        return _numbers(found, *((first, second) if day_first else (second, first)), british)

    def month_year(found: re.Match[str]) -> str:
        month = MONTH_NAMES[found["month"].lower().rstrip(".")]
        return f"{month} {year(int(found['year']), british=british)}"

    text = _DECADE.sub(lambda found: decade(int(found["long"] or found["short"])), text)
    text = _ISO.sub(iso, text)
    text = _NUMERIC.sub(numeric, text)
    text = _MONTH_DAY.sub(named, text)
    text = _DAY_MONTH.sub(named, text)
    text = _MONTH_YEAR.sub(month_year, text)
    return _TIME.sub(_time, text)


def read_years(text: str, *, british: bool) -> str:
    """Spans of years, and bare numbers that look like a year from what is around them."""

    def span(found: re.Match[str]) -> str:
        first, second = int(found["first"]), int(found["second"])
        if len(found["second"]) == 2:  # noqa: PLR2004 - as in 1914-18
            words = cardinal(second) if second > 9 else f"oh {cardinal(second)}"  # noqa: PLR2004
        else:
            words = year(second, british=british)
        return f"{year(first, british=british)} to {words}"

    def bare(found: re.Match[str]) -> str:
        after = (found["after"] or "").strip()
        counted = bool(after) and after not in _AFTER_A_YEAR
        if not found["context"] and (counted or found["year"] < "1100"):
            return found[0]
        if after in ("%", "°") or (counted and after.endswith("s")) or after == "people":
            return found[0]
        words = year(int(found["year"]), british=british)
        return f"{found['context'] or ''}{words}{found['after'] or ''}"

    text = _YEARS.sub(span, text)
    return _BARE_YEAR.sub(bare, text)


def _numbers(found: re.Match[str], day: int, month: int, british: bool) -> str:
    number = int(found["year"])
    if number < 100:  # noqa: PLR2004
        number += 1900 if number > 50 else 2000  # noqa: PLR2004
    if not (1 <= month <= _MONTHS_IN_YEAR and 1 <= day <= _DAYS_IN_MONTH):
        return found[0]
    return _date(day, MONTHS[month - 1], number, day_first=british, british=british)


def _date(day: int, month: str, number: int | None, *, day_first: bool, british: bool) -> str:
    when = f"the {ordinal(day)} of {month}" if day_first else f"{month} {ordinal(day)}"
    return when if number is None else f"{when}, {year(number, british=british)}"


def _time(found: re.Match[str]) -> str:
    hour = int(found["hour"])
    if (found["minute"] is None and found["half"] is None) or hour > _LAST_HOUR:
        return found[0]
    minute = int(found["minute"] or 0)
    words = cardinal(hour)
    if minute:
        words += f" {cardinal(minute)}" if minute > 9 else f" oh {cardinal(minute)}"  # noqa: PLR2004
    elif not found["half"] and not found["second"]:
        words += " o'clock" if hour <= _MONTHS_IN_YEAR else " hundred"
    if found["second"]:
        words += f" and {cardinal(int(found['second']))} seconds"
    if found["half"]:
        words += f" {found['half'].upper()}{JOINT}M{JOINT}"
        ends = found["dot"] and found.end() == len(found.string.rstrip())
        words += "." if ends else ""
    return words
