"""A campaign: from a brief to steps.

What a marketing team would expect to be made, and what of it is made once:

=================  ==================================================================
headline, body     for each language and variant; for each audience its own as well
call to action     for each language and variant: audiences share it, as they share
                   what it leads to
idea of a picture  for each variant, in English: languages and audiences share it
picture            for each variant and size; for each audience its own as well, of
                   the same idea with the audience named
voice-over         for each language and variant, of the common copy
video              for each language and variant, of the common copy and pictures
=================  ==================================================================

An output that another needs is made too (``CampaignSize``). The last step packs everything.

Where a text is empty after cleaning, the product's name stands in wherever something has to be
said or shown (the headline, a scene of the video); elsewhere it is left out. The bundle's manifest
marks such texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.db.models import Model
from shared.plans import prompts
from shared.plans.base import BUNDLE, Offers, Seeds, Step
from shared.plans.campaign_size import CampaignSize
from shared.plans.prompts import BODY, CALL_TO_ACTION, HEADLINE, IDEA
from shared.plans.references import (
    Reference,
    captions_of,
    from_step,
    joined,
    steps_named,
    text_of,
)
from shared.plans.texts import at_most, one_line
from shared.pools import UPKEEP
from shared.specs import Audience, CampaignSpec

CHAT = "/v1/chat/completions"
IMAGES = "/v1/images/generations"
SPEECH = "/v1/audio/speech"
COMPOSITIONS = "/v1/videos/compositions"

PICTURE_ID = "data.0.artifact_id"
SPOKEN = (HEADLINE, BODY, CALL_TO_ACTION)
"""What a voice-over says and a video shows, in order."""


def plan_campaign(spec: CampaignSpec, offers: Offers, *, row: str) -> list[Step]:
    """The steps of a campaign. Raises ModelNotFound, and InvalidRequest for too large a brief."""
    size = CampaignSize(spec)
    size.check()
    models = {CHAT: offers(CHAT, spec.model, "model")}
    if size.pictures:
        models[IMAGES] = offers(IMAGES, spec.image_model, "image_model")
    if size.speech:
        models[SPEECH] = offers(SPEECH, spec.speech_model, "speech_model")
    if size.video:
        models[COMPOSITIONS] = offers(COMPOSITIONS, spec.video_model, "video_model")
    return _Planner(spec, size, models, Seeds(spec.seed, row)).steps()


@dataclass(frozen=True, slots=True)
class _Place:
    """Whose copy or picture it is: a language's, a variant's, maybe an audience's."""

    variant: int
    language: str | None = None
    number: int = 0
    """Of the audience, from 1; 0 is what all audiences share."""
    audience: Audience | None = None

    def name(self, kind: str, detail: str = "") -> str:
        """A step's: ``headline en 1``, ``picture 1 64x64 for 7 night owls``."""
        where = [kind, self.language or "", str(self.variant), detail]
        if self.audience is not None:
            where.append(f"for {self.number} {at_most(one_line(self.audience.name), 40)}")
        return " ".join(filter(None, where))

    def listed(self, step: str, kind: str) -> dict[str, Any]:
        """How the bundle learns what the step made."""
        return {
            "step": step,
            "kind": kind,
            "language": self.language,
            "variant": self.variant,
            "audience": self.number or None,
        }


@dataclass
class _Planner:
    """Appends step after step; ``_add`` is the only place that makes one."""

    spec: CampaignSpec
    size: CampaignSize
    models: dict[str, Model]
    seeds: Seeds
    made: list[Step] = field(default_factory=list)
    order: dict[str, int] = field(default_factory=dict)
    """Places of the steps made so far, by name: a reference to any other is a KeyError here."""
    texts: list[dict[str, Any]] = field(default_factory=list)
    media: list[dict[str, Any]] = field(default_factory=list)

    def steps(self) -> list[Step]:
        variants = range(1, self.spec.variants + 1)
        for variant in variants:
            self._common(variant)
        for number, audience in enumerate(self.spec.audiences, 1):
            for variant in variants:
                self._personal(variant, number, audience)
        return [*self.made, self._bundle()]

    def _common(self, variant: int) -> None:
        size, languages = self.size, self.spec.languages
        for language in languages if size.copy else ():
            place = _Place(variant, language)
            self._headline_and_body(place)
            self._call_to_action(place)
        if size.pictures:
            self._ask(f"{IDEA} {variant}", IDEA, variant, prompts.idea_request(self.spec))
            for image_size in size.sizes:
                self._picture(_Place(variant), image_size)
        for language in languages:
            if size.voice_over:
                self._voice_over(_Place(variant, language))
            if size.video:
                self._video(_Place(variant, language))

    def _personal(self, variant: int, number: int, audience: Audience) -> None:
        if self.size.personal_copy:
            for language in self.spec.languages:
                self._headline_and_body(_Place(variant, language, number, audience))
        if self.size.personal_pictures:
            for image_size in self.size.sizes:
                self._picture(_Place(variant, None, number, audience), image_size)

    def _bundle(self) -> Step:
        body = {
            "brief": brief_of(self.spec),
            "stand_in": self._product(),
            "texts": self.texts,
            "media": self.media,
        }
        return Step(BUNDLE, BUNDLE, UPKEEP, None, body, tuple(self.order))

    def _add(self, name: str, endpoint: str, body: dict[str, Any]) -> None:
        model = self.models[endpoint]
        needs = tuple(sorted(steps_named(body), key=self.order.__getitem__))
        self.order[name] = len(self.order)
        body = {"model": model.id, **body}
        self.made.append(Step(name, endpoint, model.pool, model.id, body, needs))

    # --- texts ----------------------------------------------------------------------------

    def _headline_and_body(self, place: _Place) -> None:
        assert place.language is not None  # noqa: S101 - copy is always in a language
        headline, body = place.name(HEADLINE), place.name(BODY)
        request = prompts.headline_request(self.spec, place.language, place.audience)
        self._ask(headline, HEADLINE, place.variant, request)
        request = prompts.body_request(self.spec, place.language, place.audience)
        self._ask(body, BODY, place.variant, request)
        self._list_text(headline, HEADLINE, place)
        self._list_text(body, BODY, place)

    def _call_to_action(self, place: _Place) -> None:
        assert place.language is not None  # noqa: S101 - copy is always in a language
        name = place.name(CALL_TO_ACTION)
        request = prompts.call_request(self.spec, place.language)
        self._ask(name, CALL_TO_ACTION, place.variant, request)
        self._list_text(name, CALL_TO_ACTION, place)

    def _ask(self, name: str, kind: str, variant: int, messages: list[dict[str, Any]]) -> None:
        body = {
            "messages": messages,
            "max_tokens": prompts.MAX_TOKENS[kind],
            "temperature": prompts.temperature(variant),
            "top_p": 0.9,
            "seed": self.seeds.of(name),
        }
        self._add(name, CHAT, body)

    def _written(self, kind: str, place: _Place, *, otherwise: str) -> Reference:
        return text_of(place.name(kind), prompts.FILTERS[kind], otherwise=otherwise)

    def _list_text(self, step: str, kind: str, place: _Place) -> None:
        text = self._written(kind, place, otherwise="")
        self.texts.append({**place.listed(step, kind), "text": text})

    def _product(self) -> str:
        return prompts.short_product(self.spec)

    # --- pictures, sound, video -----------------------------------------------------------

    def _picture(self, place: _Place, size: str) -> None:
        name = place.name("picture", size)
        idea = f"{IDEA} {place.variant}"
        prompt = prompts.picture_prompt(self.spec, idea, place.audience)
        self._add(name, IMAGES, {"prompt": prompt, "size": size, "seed": self.seeds.of(name)})
        self.media.append(place.listed(name, "picture"))

    def _voice_over(self, place: _Place) -> None:
        headline = self._written(HEADLINE, place, otherwise=self._product())
        rest = [self._written(kind, place, otherwise="") for kind in (BODY, CALL_TO_ACTION)]
        # A paragraph each, so that the voice pauses between them.
        self._speak("voice-over", place, joined(headline, *rest, by="\n\n"), "mp3")

    def _video(self, place: _Place) -> None:
        sizes = self.size.sizes
        scenes = []
        for number, kind in enumerate(SPOKEN):
            said = self._written(kind, place, otherwise=self._product())
            # Lossless, as it is encoded once more inside the video.
            narration = self._speak(f"narration {kind}", place, said, "wav")
            picture = _Place(place.variant).name("picture", sizes[number % len(sizes)])
            scene: dict[str, Any] = {
                "picture": {"artifact_id": from_step(picture, PICTURE_ID)},
                "narration": {"artifact_id": from_step(narration, "artifact_id")},
            }
            # The headline stands in large letters; captions would say it twice.
            shown = {"title": said} if kind == HEADLINE else {"captions": captions_of(narration)}
            scenes.append(scene | shown)
        body: dict[str, Any] = {"scenes": scenes}
        if self.spec.logo is not None:
            body["logo"] = self.spec.logo.model_dump(exclude_none=True)
        name = place.name("video")
        self._add(name, COMPOSITIONS, body)
        self.media.append(place.listed(name, "video"))

    def _speak(self, kind: str, place: _Place, text: Reference, audio_format: str) -> str:
        name = place.name(kind)
        body = {
            "input": text,
            "voice": self.spec.voice,
            "response_format": audio_format,
            "seed": self.seeds.of(name),
        }
        self._add(name, SPEECH, body)
        self.media.append(place.listed(name, kind))
        return name


def brief_of(spec: CampaignSpec) -> dict[str, Any]:
    """The brief as the bundle keeps it: without the bytes of a logo."""
    brief = spec.model_dump(exclude_none=True)
    if spec.logo is not None and spec.logo.image_url is not None:
        media_type = spec.logo.image_url.partition(";")[0].removeprefix("data:")
        brief["logo"] = {"media_type": media_type}
    return brief
