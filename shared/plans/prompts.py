"""What the text steps of a campaign are asked: one short request each, with an example where the
form matters, which a small model can follow as well as a large one."""

from __future__ import annotations

from typing import Any

from shared.plans.references import Reference, joined, text_of
from shared.plans.texts import at_most, one_line
from shared.specs import Audience, CampaignSpec

HEADLINE = "headline"
BODY = "body"
CALL_TO_ACTION = "call to action"
IDEA = "picture idea"

HEADLINE_CHARACTERS = 90
BODY_CHARACTERS = 600
CALL_CHARACTERS = 60
IDEA_CHARACTERS = 160
PRODUCT_CHARACTERS = 80
"""Of the product's name where it has to be short: in picture prompts, and as a stand-in."""

FILTERS: dict[str, list[str | dict[str, int]]] = {
    HEADLINE: ["plain", "first_line", "one_line", "no_full_stop", {"at_most": HEADLINE_CHARACTERS}],
    BODY: ["plain", "one_line", "whole_sentences", {"at_most": BODY_CHARACTERS}],
    CALL_TO_ACTION: [
        "plain", "first_line", "first_sentence", "no_full_stop", {"at_most": CALL_CHARACTERS},
    ],
    IDEA: [
        "plain", "first_line", "first_sentence", "no_full_stop", {"at_most": IDEA_CHARACTERS},
    ],
}  # fmt: skip
"""How each kind of text is cleaned, for every step that uses it and for the bundle."""
MAX_TOKENS = {HEADLINE: 32, BODY: 140, CALL_TO_ACTION: 20, IDEA: 48}

_LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "ms": "Malay",
    "nb": "Norwegian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_REGIONS = {
    "pt-br": "Brazilian Portuguese", "zh-tw": "Traditional Chinese",
    "zh-hant": "Traditional Chinese", "en-gb": "British English", "fr-ca": "Canadian French",
}  # fmt: skip


def language_name(code: str) -> str:
    """How a prompt names the language: in English, which every model knows."""
    code = code.lower()
    return (
        _REGIONS.get(code)
        or _LANGUAGES.get(code.partition("-")[0])
        or f"the language with the code {code!r}"
    )


def temperature(variant: int) -> float:
    """The first variant is the model's surest; the others are to differ from it."""
    return 0.4 if variant == 1 else 0.8


def short_product(spec: CampaignSpec) -> str:
    return at_most(one_line(spec.product), PRODUCT_CHARACTERS)


def told(spec: CampaignSpec, audience: Audience | None) -> str:
    """The brief in a few sentences. Small models rewrite prose better than they fill in forms."""
    sentences = [one_line(spec.product).rstrip(".") + "."]
    if spec.description:
        sentences.append(one_line(spec.description))
    readers = one_line(spec.audience)
    if audience is not None:
        about = f" ({one_line(audience.description)})" if audience.description else ""
        readers = one_line(audience.name) + about
    if readers:
        sentences.append(f"It is for {readers}.")
    return " ".join(sentences)


def headline_request(
    spec: CampaignSpec, language: str, audience: Audience | None
) -> list[dict[str, Any]]:
    asked = "Write a {} advertising headline of at most eight words in {}.\n\n{}"
    toys = "Wooden train set. Toy trains made of beech wood. It is for children."
    brief = told(spec, audience)
    return [
        _says("user", asked.format("playful", "English", toys)),
        _says("assistant", "All Aboard for Hours of Play"),
        _says("user", asked.format(one_line(spec.tone), language_name(language), brief)),
    ]


def body_request(
    spec: CampaignSpec, language: str, audience: Audience | None
) -> list[dict[str, Any]]:
    return [
        _says(
            "user",
            f"{told(spec, audience)}\n\nRewrite this in {language_name(language)} as a "
            f"{one_line(spec.tone)} advertisement in two sentences.",
        )
    ]


def call_request(spec: CampaignSpec, language: str) -> list[dict[str, Any]]:
    asked = "Write a call to action of two to four words in {}: {}"
    return [
        _says("user", asked.format("English", "Wooden train set")),
        _says("assistant", "Start the journey"),
        _says("user", asked.format("English", "Herbal tea")),
        _says("assistant", "Taste the calm"),
        _says("user", asked.format(language_name(language), short_product(spec))),
    ]


def idea_request(spec: CampaignSpec) -> list[dict[str, Any]]:
    """What a picture shows; English, which is what image models are trained on."""
    asked = "Describe a photograph of this in at most ten words: {}"
    return [
        _says("user", asked.format("Wooden train set")),
        _says("assistant", "a wooden train on a sunny playroom floor"),
        _says("user", asked.format(short_product(spec))),
    ]


def picture_prompt(spec: CampaignSpec, idea: str, audience: Audience | None) -> Reference:
    """The product's words first, since small image models read little more than the beginning."""
    readers = "" if audience is None else f"for {at_most(one_line(audience.name), 60)}"
    seen = text_of(idea, FILTERS[IDEA], otherwise="")
    return joined(short_product(spec), seen, readers, by=", ")


def _says(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
