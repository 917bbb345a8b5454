"""The pieces of a contact sheet: a text, a picture, a sound, a video, each as safe HTML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from urllib.parse import quote

from shared.db.bundles import MadeArtifact
from shared.plans.prompts import CALL_TO_ACTION, HEADLINE
from worker.upkeep.bundle_contents import Contents, Medium, Text
from worker.upkeep.bundle_links import Links, picture_shown

_KIB = 1024


def safe(words: object) -> str:
    """Words that a tenant or a model may have written, for HTML text and quoted attributes."""
    return escape("".join(c for c in str(words) if c.isprintable() or c in "\n\t"), quote=True)


class Cards:
    """Makes the pieces of one page, whose media are where ``links`` says."""

    def __init__(self, contents: Contents, links: Links) -> None:
        self._contents = contents
        self._links = links

    def shows(self, medium: Medium) -> bool:
        shown = picture_shown(medium) if medium.kind == "picture" else medium.main
        return self._links.holds(shown)

    def written(self, text: Text) -> str:
        words = safe(text.text)
        if not text.text and text.kind == HEADLINE:
            words = f'{safe(self._contents.stand_in)} <span class="empty">(stands in)</span>'
        if not words:
            return f'<p class="empty">The model wrote no {safe(text.kind)}.</p>\n'
        looks = {HEADLINE: "headline", CALL_TO_ACTION: "call"}.get(text.kind, "body")
        language = safe(text.place.language)
        return f'<p class="{looks}" lang="{language}" dir="auto">{words}</p>\n'

    def picture(self, medium: Medium) -> Iterator[str]:
        main, shown = medium.main, picture_shown(medium)
        size = f"{main.width} × {main.height}" if main.width and main.height else ""
        yield '<figure class="card">'
        if self.shows(medium):
            yield from self._image(shown, f"Picture {size}".strip())
        seed = "" if medium.origin.seed is None else f"seed {medium.origin.seed}"
        yield f"<figcaption>{_joined((size, seed, medium.origin.model))}<br>{self._file(main)}"
        yield f"<details><summary>Prompt</summary><p>{safe(medium.origin.prompt)}</p></details>"
        yield "</figcaption></figure>\n"

    def sound(self, medium: Medium) -> Iterator[str]:
        yield "<figure>"
        if self.shows(medium):
            wave = medium.companions.get("waveform")
            if wave is not None and self._links.holds(wave):
                yield from self._image(wave, "", "wave")
            yield '<audio controls preload="none" src="'
            yield from self._links.source(medium.main)
            yield '"></audio>'
        yield f"<figcaption>{self._facts('Voice-over', medium)}</figcaption></figure>\n"

    def video(self, medium: Medium) -> Iterator[str]:
        yield "<figure>"
        if self.shows(medium):
            poster = medium.companions.get("thumbnail")
            yield '<video controls playsinline preload="none"'
            if poster is not None and self._links.holds(poster):
                yield ' poster="'
                yield from self._links.source(poster)
                yield '"'
            yield ' src="'
            yield from self._links.source(medium.main)
            yield '"></video>'
        yield f"<figcaption>{self._facts('Video', medium)}"
        captions = medium.companions.get("captions")
        if captions is not None:
            yield f" · {self._file(captions, 'captions')}"
        yield "</figcaption></figure>\n"

    def _facts(self, what: str, medium: Medium) -> str:
        main = medium.main
        seconds = "" if main.seconds is None else f"{main.seconds:.1f} s"
        size = f"{main.width} × {main.height}" if main.width and main.height else ""
        return f"{_joined((what, seconds, size))} · {self._file(main)}"

    def _file(self, artifact: MadeArtifact, words: str = "") -> str:
        """A link to the file in the unzipped folder, with its size."""
        path = self._contents.files[artifact.id]
        name = safe(words or path.rpartition("/")[2])
        return f'<a href="{quote(path)}">{name}</a> ({_size(artifact.bytes)})'

    def _image(self, artifact: MadeArtifact, words: str, looks: str = "") -> Iterator[str]:
        sides = ""
        if artifact.width and artifact.height:
            sides = f' width="{artifact.width}" height="{artifact.height}"'
        name = f' class="{looks}"' if looks else ""
        yield f'<img{name} alt="{safe(words)}"{sides} loading="lazy" src="'
        yield from self._links.source(artifact)
        yield '">'


def _joined(facts: Iterable[str | None]) -> str:
    return " · ".join(safe(fact) for fact in facts if fact)


def _size(count: int) -> str:
    if count < _KIB**2:
        return f"{max(1, round(count / _KIB))} KiB"
    return f"{count / _KIB**2:.1f} MiB"
