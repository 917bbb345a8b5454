"""Long texts cut into pieces that are spoken one at a time: sentences, where they fit."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from worker.engines.speech.joining import Break


class Part(msgspec.Struct, frozen=True):
    """A piece of a text, without white space around it."""

    text: str
    after: Break


_PARAGRAPHS = re.compile(r"\n[ \t\r\f\v]*\n\s*")
_LIST_MARK = re.compile(r"(?:[-*•–—]|\d{1,3}[.)]|[a-z]\))\s")
_SHORT_LINE = 50
"""Characters: a line that is shorter and followed by a capital was ended on purpose."""

# Looked for at the first mark of a run only: a hundred thousand dots are read once.
_END = re.compile(
    r"(?:(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s+|(?<![。！？])[。！？]++[」』”]*\s*)(?=\S)"
)
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘]+$")
_CLAUSE = re.compile(r"[,;:—–)\]]+[\"'”’]?\s+|\s[—–-]\s+|[，；：、]")
_LEAST_CLAUSE = 0.4
"""Of the longest piece: clauses are not cut shorter than that."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BEFORE_A_NAME = _words("""
    dr mr mrs ms mx prof st ste gen col maj sgt capt cpt lt cmdr adm rev fr hon gov sen rep pres
    messrs mme mlle mt ft ave blvd rd e.g i.e cf vs viz ca approx al resp incl ph
""")
"""Never at the end of a sentence, when a period follows."""
_BEFORE_A_NUMBER = _words("""
    no nos fig figs vol vols p pp ch sec art eq ref tab jan feb mar apr jun jul aug sep sept oct
    nov dec
""")
_EITHER = _words("""
    etc inc ltd co corp bros jr sr esq dept univ assn u.s u.k u.n e.u u.s.a d.c a.m p.m b.c a.d
    ph.d m.d b.a m.a b.sc m.sc ed eds est min max
""")
"""At the end of a sentence only before a word that begins one."""
_OPENING = re.compile(
    r"[\"'“‘(\[]*(?:The|This|That|These|Those|There|It|Its|He|She|We|They|You|I|My|Our|His|Her|"
    r"Their|A|An|In|On|At|By|For|From|With|To|As|And|But|Or|So|Yet|If|When|While|After|Before|"
    r"Since|However|Now|Then|Here|Not|No|Yes|What|Who|Why|How|Where|Some|Many|Most|All|Each|"
    r"Both|One|Please|Let|Do|Did|Does|Is|Are|Was|Were|Can|Could|Will|Would|Should|Have|Has)"
    r"(?![\w.])"
)


def cut(text: str, longest: int) -> list[Part]:
    """The pieces of a text in order, none with more than ``longest`` characters.

    Sentences stay whole where they fit. Longer ones are cut at clauses, then at words, and only a
    word that is longer by itself anywhere.
    """
    parts: list[Part] = []
    for paragraph in _PARAGRAPHS.split(text.strip()):
        sentences = [piece for line in _lines(paragraph) for piece in _sentences(line)]
        for place, sentence in enumerate(sentences):
            last = place == len(sentences) - 1
            pieces = list(_bounded(sentence, longest))
            parts += [Part(piece, "clause") for piece in pieces[:-1]]
            parts.append(Part(pieces[-1], "paragraph" if last else "sentence"))
    if parts:
        parts[-1] = Part(parts[-1].text, "end")
    return parts


def _lines(paragraph: str) -> Iterator[str]:
    """The lines of a paragraph, those that were merely wrapped put together again."""
    held = ""
    for line in filter(None, map(str.strip, paragraph.split("\n"))):
        if held and _ended_on_purpose(held.rsplit("\n", 1)[-1], line):
            yield held.replace("\n", " ")
            held = line
        else:
            held = f"{held}\n{line}" if held else line
    if held:
        yield held.replace("\n", " ")


def _ended_on_purpose(line: str, following: str) -> bool:
    if _LIST_MARK.match(following) or line.endswith(":"):
        return True
    return len(line) < _SHORT_LINE and following[:1].isupper()


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for found in _END.finditer(text):
        if _ends_here(text, start, found):
            yield text[start : found.end()].strip()
            start = found.end()
    if text[start:].strip():
        yield text[start:].strip()


def _ends_here(text: str, start: int, found: re.Match[str]) -> bool:
    mark, following = found[0].strip(), text[found.end() :][:40]
    first = following.lstrip("\"'“‘«([")[:1]
    if mark[0] in "。！？":
        return True
    if first.islower():
        return False
    if not mark.startswith(".") or mark.startswith(".."):
        return True
    before = _LAST_WORD.search(text, max(start, found.start() - 30), found.start())
    return _period_ends(before[0] if before else "", first, following)


def _period_ends(word: str, first: str, following: str) -> bool:
    """Whether the period after a word ends the sentence; ``first`` is the next letter."""
    name = word.lower()
    if name in _BEFORE_A_NAME:
        return False
    if name in _BEFORE_A_NUMBER:
        return not first.isdigit()
    if name in _EITHER or (len(word) == 1 and word.isupper()):
        return bool(_OPENING.match(following))
    return True


def _bounded(sentence: str, longest: int) -> Iterator[str]:
    rest = sentence
    while len(rest) > longest:
        place = _place_to_cut(rest, longest)
        yield rest[:place].strip()
        rest = rest[place:].strip()
    if rest:
        yield rest


def _place_to_cut(text: str, longest: int) -> int:
    head = text[: longest + 1]
    clauses = [found.end() for found in _CLAUSE.finditer(head)]
    fitting = [place for place in clauses if longest * _LEAST_CLAUSE <= place <= longest]
    if fitting:
        return fitting[-1]
    space = max(head.rfind(" "), head.rfind("\t"))
    return space if space > 0 else longest
