"""The contact sheet: a campaign on one page that opens from disk, without scripts or a network.

Everything that a tenant or a model has written passes ``safe``; the policy in the page's head
allows no script, no style but its own and nothing from any host.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from string import Template

from shared.plans.prompts import language_name
from shared.plans.texts import at_most, one_line
from worker.upkeep.bundle_cards import Cards, safe
from worker.upkeep.bundle_contents import Contents, Medium, Text
from worker.upkeep.bundle_links import Links

MEDIA_TYPE = "text/html"
TITLE_CHARACTERS = 160
SHOWN_KINDS = ("picture", "voice-over", "video")
"""The rest (a video's narrations) is heard in what is shown."""

_TEMPLATE = Path(__file__).with_name("contact_sheet.html")
_STYLE = Path(__file__).with_name("contact_sheet.css")
_BODY = "\0"


def contact_sheet(contents: Contents, links: Links) -> Iterator[bytes]:
    """The page in pieces, since what is embedded may be large."""
    style = _STYLE.read_text()
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = Template(_TEMPLATE.read_text()).substitute(
        title=safe(_title(contents)),
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{style_hash}'; img-src data: file: 'self'; "
        "media-src data: file: 'self'; base-uri 'none'; form-action 'none'",
        body=_BODY,
    )
    head, _, tail = page.partition(_BODY)
    yield head.encode("utf-8", "replace")
    for piece in _Sheet(contents, links).body():
        yield piece.encode("utf-8", "replace")
    yield tail.encode()


def _title(contents: Contents) -> str:
    return at_most(one_line(contents.brief["product"]), TITLE_CHARACTERS)


def _language(code: str) -> str:
    name = language_name(code)
    return code if code in name else f"{name} ({code})"


class _Sheet:
    def __init__(self, contents: Contents, links: Links) -> None:
        self._contents = contents
        self._cards = Cards(contents, links)
        self._variants = range(1, contents.brief["variants"] + 1)
        self._texts: dict[tuple[int, int | None], list[Text]] = defaultdict(list)
        self._media: dict[tuple[int, int | None], list[Medium]] = defaultdict(list)
        for text in contents.texts:
            self._texts[text.place.variant, text.place.audience].append(text)
        for medium in contents.media:
            if medium.kind in SHOWN_KINDS:
                self._media[medium.place.variant, medium.place.audience].append(medium)

    def body(self) -> Iterator[str]:
        yield from self._header()
        yield "<main>\n"
        for variant in self._variants:
            name = "The campaign" if len(self._variants) == 1 else f"Variant {variant}"
            yield f'<section id="variant-{variant}"><h2>{name}</h2>\n'
            yield from self._made(variant, None)
            yield "</section>\n"
        for number, audience in enumerate(self._contents.audiences, 1):
            yield f'<section id="audience-{number}"><h2>For {safe(audience["name"])}</h2>\n'
            if audience.get("description"):
                yield f'<p class="about">{safe(audience["description"])}</p>\n'
            for variant in self._variants:
                if len(self._variants) > 1:
                    yield f"<h3>Variant {variant}</h3>\n"
                yield from self._made(variant, number)
            yield "</section>\n"
        yield "</main>\n"
        yield from self._footer()

    def _header(self) -> Iterator[str]:
        brief, title = self._contents.brief, _title(self._contents)
        yield f'<header>\n<p class="over">Campaign</p>\n<h1>{safe(title)}</h1>\n'
        whole = one_line(brief["product"])
        about = [whole if whole != title else "", brief.get("description", "")]
        yield from (f'<p class="about">{safe(words)}</p>\n' for words in about if words)
        facts = {
            "Audience": brief.get("audience"),
            "Tone": brief.get("tone"),
            "Languages": ", ".join(map(_language, brief["languages"])),
            "Variants": brief["variants"] if len(self._variants) > 1 else None,
            "Audiences of their own": len(self._contents.audiences) or None,
        }
        yield '<dl class="facts">\n'
        for name, fact in facts.items():
            if fact:
                yield f"<div><dt>{name}</dt><dd>{safe(fact)}</dd></div>\n"
        yield "</dl>\n"
        yield from self._sections()
        yield from self._notice()
        yield "</header>\n"

    def _sections(self) -> Iterator[str]:
        entries = [(f"variant-{number}", f"Variant {number}") for number in self._variants]
        if len(entries) == 1:
            entries = [("variant-1", "The campaign")]
        for number, audience in enumerate(self._contents.audiences, 1):
            entries.append((f"audience-{number}", audience["name"]))
        if len(entries) > 1:
            items = (f'<li><a href="#{target}">{safe(name)}</a></li>' for target, name in entries)
            yield f'<nav aria-label="Sections"><ul>{"".join(items)}</ul></nav>\n'

    def _notice(self) -> Iterator[str]:
        shown = [medium for media in self._media.values() for medium in media]
        absent = sum(not self._cards.shows(medium) for medium in shown)
        if absent:
            yield (
                f'<p class="notice">{absent} of {len(shown)} media are not inside this page, as '
                "they are too large. Put the page into the unzipped folder, and its links lead to "
                "them.</p>\n"
            )

    def _made(self, variant: int, audience: int | None) -> Iterator[str]:
        """What there is of one variant, for everybody or for one audience."""
        media = self._media[variant, audience]
        pictures = [medium for medium in media if medium.kind == "picture"]
        if pictures:
            yield '<div class="pictures">\n'
            for picture in pictures:
                yield from self._cards.picture(picture)
            yield "</div>\n"
        texts = self._texts[variant, audience]
        if texts:
            yield '<div class="copy">\n'
            for language in self._contents.brief["languages"]:
                yield f'<article class="card"><h3>{safe(_language(language))}</h3>\n'
                yield from self._card(language, texts, media)
                yield "</article>\n"
            yield "</div>\n"

    def _card(self, language: str, texts: list[Text], media: list[Medium]) -> Iterator[str]:
        for text in texts:
            if text.place.language == language:
                yield self._cards.written(text)
        for medium in media:
            if medium.place.language == language:
                made = self._cards.sound if medium.kind == "voice-over" else self._cards.video
                yield from made(medium)

    def _footer(self) -> Iterator[str]:
        contents = self._contents
        models = sorted({step.model for step in contents.steps if step.model})
        yield f"<footer>\n<p>{len(contents.texts)} texts, {len(contents.artifacts)} files. "
        yield f"Generated by {safe(', '.join(models))}.</p>\n"
        yield '<p>How each was made: <a href="manifest.json">manifest.json</a></p>\n'
        yield f"<p>{safe(contents.job_id)}</p>\n</footer>\n"
