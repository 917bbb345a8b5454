"""The demo's rows: every row is a template filled from a table. Pure, but for reading the tables.

Product advertisements and news take turns; news alternates between a headline and a rewrite. A
table that is used up starts over in another tone, and with another seed. Pictures of the products
and news read aloud come on top, in the same batch.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from string import Template
from typing import Any

CHAT = "/v1/chat/completions"
PICTURE = "/v1/images/generations"
VOICE_OVER = "/v1/audio/speech"
LEAST_ROWS = 24
PICTURES, VOICE_OVERS = 6, 2
PICTURE_SEED = 7
CAMPAIGN_PRODUCT = "tent"
CAMPAIGN_VARIANTS = 2
TONES = ("friendly", "cheerful", "elegant", "simple")
NEWS_TEMPLATES = (("headline", "news_headline.txt", 32), ("rewrite", "news_rewrite.txt", 72))
AD_TEMPLATE = "product_ad.txt"
AD_TOKENS = 64
SAMPLING = {"temperature": 0.3, "top_p": 0.9, "frequency_penalty": 0.4, "stop": ["\n\n"]}
"""For a very small model: close to the source, and no second paragraph to lose itself in."""


@dataclass(frozen=True, slots=True)
class Models:
    """Which model to ask for what."""

    text: str
    image: str
    speech: str


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One row: how its results are called, and what is asked."""

    custom_id: str
    endpoint: str
    prompt: str
    options: dict[str, Any]

    def line(self, models: Models) -> dict[str, Any]:
        """The row in the batch input format."""
        asked: dict[str, dict[str, Any]] = {
            CHAT: {
                "model": models.text,
                "messages": [{"role": "user", "content": self.prompt}],
            },
            PICTURE: {"model": models.image, "prompt": self.prompt},
            VOICE_OVER: {"model": models.speech, "input": self.prompt},
        }
        return {
            "custom_id": self.custom_id,
            "method": "POST",
            "url": self.endpoint,
            "body": asked[self.endpoint] | self.options,
        }


def demo_rows(count: int) -> list[DemoRow]:
    """``count`` different texts, half ads and half news; then pictures and voice-overs."""
    pairs = zip(_ads(), _news(), strict=True)
    texts = islice((row for pair in pairs for row in pair), count)
    return [*texts, *_pictures(), *_voice_overs()]


def input_lines(rows: list[DemoRow], models: Models) -> str:
    """The batch's input file."""
    return "".join(json.dumps(row.line(models), ensure_ascii=False) + "\n" for row in rows)


def _pictures() -> Iterator[DemoRow]:
    shown = [product for product in read_table("products.csv") if product["picture"]]
    for product in shown[:PICTURES]:
        options = {"seed": PICTURE_SEED}
        yield DemoRow(f"picture-{product['slug']}", PICTURE, product["picture"], options)


def _voice_overs() -> Iterator[DemoRow]:
    for report in read_table("news.csv")[:VOICE_OVERS]:
        options = {"response_format": "mp3"}
        yield DemoRow(f"voice-over-{report['slug']}", VOICE_OVER, report["text"], options)


def _ads() -> Iterator[DemoRow]:
    template, products = _template(AD_TEMPLATE), read_table("products.csv")
    number = 0
    while True:
        turn, index = divmod(number, len(products))
        product = products[index]
        # Shifted by the turn, so that a product gets every tone before one comes again.
        prompt = template.substitute(product, tone=TONES[(index + turn) % len(TONES)])
        options = {"max_tokens": AD_TOKENS, "seed": number, **SAMPLING}
        yield DemoRow(f"ad-{product['slug']}-{turn + 1}", CHAT, prompt, options)
        number += 1


def _news() -> Iterator[DemoRow]:
    reports = read_table("news.csv")
    templates = [(kind, _template(name), limit) for kind, name, limit in NEWS_TEMPLATES]
    number = 0
    while True:
        turn, index = divmod(number, len(reports))
        report = reports[index]
        kind, template, limit = templates[(index + turn) % len(templates)]
        custom_id = f"news-{report['slug']}-{kind}-{turn + 1}"
        options = {"max_tokens": limit, "seed": number, **SAMPLING}
        yield DemoRow(custom_id, CHAT, template.substitute(report), options)
        number += 1


def campaign_brief(models: Models) -> dict[str, Any]:
    """The body of a campaign for one of the products."""
    product = next(row for row in read_table("products.csv") if row["slug"] == CAMPAIGN_PRODUCT)
    return {
        "model": models.text,
        "image_model": models.image,
        "speech_model": models.speech,
        "product": f"{product['name']}, {product['what']}",
        "description": f"It costs {product['price']}, and {product['strength']}.",
        "audience": product["audience"],
        "variants": CAMPAIGN_VARIANTS,
        "seed": PICTURE_SEED,
    }


def read_table(name: str) -> list[dict[str, str]]:
    """A table of this folder, one dict a line."""
    text = (files(__package__) / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _template(name: str) -> Template:
    return Template((files(__package__) / name).read_text(encoding="utf-8").strip())
