"""The demo's rows: every row is a template filled from a table. Pure, but for reading the tables.

Product advertisements and news take turns; news alternates between a headline and a rewrite. A
table that is used up starts over in another tone, and with another seed.
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

ENDPOINT = "/v1/chat/completions"
LEAST_ROWS = 24
TONES = ("friendly", "cheerful", "elegant", "simple")
NEWS_TEMPLATES = (("headline", "news_headline.txt", 32), ("rewrite", "news_rewrite.txt", 72))
AD_TEMPLATE = "product_ad.txt"
AD_TOKENS = 64
SAMPLING = {"temperature": 0.3, "top_p": 0.9, "frequency_penalty": 0.4, "stop": ["\n\n"]}
"""For a very small model: close to the source, and no second paragraph to lose itself in."""


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One row: how its results are called, and what is asked."""

    custom_id: str
    prompt: str
    max_tokens: int
    seed: int

    def line(self, model: str) -> dict[str, Any]:
        """The row in the batch input format."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            **SAMPLING,
        }
        return {"custom_id": self.custom_id, "method": "POST", "url": ENDPOINT, "body": body}


def demo_rows(count: int) -> list[DemoRow]:
    """``count`` different rows, half advertisements and half news."""
    pairs = zip(_ads(), _news(), strict=True)
    return list(islice((row for pair in pairs for row in pair), count))


def input_lines(rows: list[DemoRow], model: str) -> str:
    """The batch's input file."""
    return "".join(json.dumps(row.line(model), ensure_ascii=False) + "\n" for row in rows)


def _ads() -> Iterator[DemoRow]:
    template, products = _template(AD_TEMPLATE), read_table("products.csv")
    number = 0
    while True:
        turn, index = divmod(number, len(products))
        product = products[index]
        # Shifted by the turn, so that a product gets every tone before one comes again.
        prompt = template.substitute(product, tone=TONES[(index + turn) % len(TONES)])
        yield DemoRow(f"ad-{product['slug']}-{turn + 1}", prompt, AD_TOKENS, number)
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
        yield DemoRow(custom_id, template.substitute(report), limit, number)
        number += 1


def read_table(name: str) -> list[dict[str, str]]:
    """A table of this folder, one dict a line."""
    text = (files(__package__) / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _template(name: str) -> Template:
    return Template((files(__package__) / name).read_text(encoding="utf-8").strip())
