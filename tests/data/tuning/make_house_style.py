"""Writes ``house_style.jsonl`` and ``house_style_unseen.jsonl``: ad lines in a made-up house style.

``python tests/data/tuning/make_house_style.py`` from anywhere. Products, qualities and benefits are
written by hand; what is put together from them is the same on every machine. The unseen file is
about other products than the first, with other wordings of the request.

The house style, which ``follows_house_style`` checks: a headline of three to nine words in sentence
case without a full stop, then `` | ``, then one sentence of six to twenty words that begins with
"You" and ends with a full stop. No exclamation marks, no second line.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TRAIN, UNSEEN = FOLDER / "house_style.jsonl", FOLDER / "house_style_unseen.jsonl"
PER_PRODUCT = 6
UNSEEN_PROMPTS = 50
_HEADLINE_WORDS, _BENEFIT_WORDS = range(3, 10), range(6, 21)
_BENEFIT = re.compile(r"You [^.!?|\n]+\.\Z")

# Of each kind: products that are trained on, products that are held out, qualities, benefits.
KINDS: dict[str, tuple[list[str], list[str], list[str], list[str]]] = {
    "kitchen": (
        ["kettle", "toaster", "bread knife", "frying pan", "coffee grinder", "lunch box", "teapot"],
        ["rolling pin", "egg timer", "salad bowl", "pepper mill", "juice press", "soup ladle",
         "cake tin", "ice bucket"],
        ["quiet", "sturdy", "easy to clean", "made of steel", "small enough for any shelf"],
        ["get breakfast on the table before the house wakes up",
         "spend less time at the sink and more with your guests",
         "cook for six as calmly as you cook for one",
         "keep one good tool instead of five that break",
         "taste the difference in the very first week"],
    ),
    "garden": (
        ["watering can", "hand rake", "plant pot", "garden hose", "bird feeder", "seed tray",
         "pair of pruning shears"],
        ["compost bin", "lawn mower", "wheelbarrow", "herb planter", "rain barrel", "garden bench",
         "trowel", "cold frame", "sun shade"],
        ["rustproof", "light in the hand", "built for clay soil", "made from old bottles",
         "happy in the rain"],
        ["see the first green shoots a week earlier",
         "finish the beds before the kettle has boiled",
         "save a bucket of water on every warm evening",
         "leave it outside all winter without a worry",
         "grow more on a balcony than most do in a field"],
    ),
    "office": (
        ["desk lamp", "notebook", "office chair", "paper shredder", "wall calendar", "fountain pen",
         "laptop stand"],
        ["stapler", "filing cabinet", "whiteboard", "desk fan", "label printer", "letter tray",
         "footrest", "pen holder"],
        ["height adjustable", "free of cables", "made of recycled paper", "gentle on the eyes",
         "ready in ten seconds"],
        ["end the day with a clear desk and a clear head",
         "write longer without a sore wrist",
         "find every page again when the auditor calls",
         "sit upright at five as you did at nine",
         "keep your best ideas where you can see them"],
    ),
    "travel": (
        ["rucksack", "rain jacket", "travel pillow", "suitcase", "water bottle", "pocket map",
         "pair of walking boots"],
        ["camping stove", "sleeping bag", "passport wallet", "head torch", "picnic blanket",
         "bicycle bag", "sun hat", "folding cup", "toilet bag"],
        ["as light as a book", "waterproof", "tested in the mountains", "easy to fold",
         "made to be repaired"],
        ["carry less and stay out longer",
         "step off the train rested and ready to walk",
         "stay dry when the forecast was wrong again",
         "pass every gate without unpacking your bag",
         "sleep well wherever the road ends"],
    ),
    "services": (
        ["bike repair service", "language course", "tax helpline", "dog walking service",
         "vegetable box", "cleaning service", "piano lesson"],
        ["window cleaning service", "driving lesson", "laundry service", "cooking class",
         "moving service", "swimming course", "book club", "gardening service"],
        ["booked in a minute", "open all weekend", "without a contract", "fair in price",
         "run by neighbours"],
        ["win back a free evening every single week",
         "talk to a person who knows your name",
         "pay for what you use and for nothing else",
         "learn at your own pace without any homework",
         "leave the boring part to people who enjoy it"],
    ),
    "home": (
        ["wool blanket", "alarm clock", "door mat", "bookshelf", "floor lamp", "laundry basket",
         "candle"],
        ["coat rack", "bath towel", "picture frame", "wall mirror", "curtain", "shoe cabinet",
         "night light", "kitchen stool", "cushion"],
        ["woven by hand", "soft to the touch", "made of oak", "put together without tools",
         "kind to small rooms"],
        ["come home to a room that already feels warm",
         "wake up gently even on the darkest morning",
         "have a place for everything that lies around",
         "keep the mud outside where it belongs",
         "make a rented flat feel like your own"],
    ),
}  # fmt: skip

HEADLINES = (
    "The {product} that is {quality}",
    "A {product} that is {quality}",
    "Meet a {product} that is {quality}",
    "One {product}, and it is {quality}",
    "At last a {product} that is {quality}",
)
SHORT_HEADLINES = (
    "A better {product} is here",
    "The {product} you will keep",
    "Finally a good {product}",
)
REQUESTS = (
    "Write an ad line for our {product}. It is {quality}.",
    "We sell a {product} that is {quality}. Give me a line for the poster.",
    "Product: {product}. Quality: {quality}. Write the ad.",
    "I need a headline and a benefit for a {product}, which is {quality}.",
    "Advertise this: a {product} ({quality}).",
    "Our new {product} is {quality}. How do we announce it?",
)
UNSEEN_REQUESTS = (
    "Please come up with an advertisement for a {product}, {quality}.",
    "What should the shop window say about our {product}? It is {quality}.",
    "Copy needed: {product}, {quality}.",
    "Can you promote a {product} that is {quality}?",
)


def follows_house_style(text: str) -> bool:
    """The rule of the module's description."""
    headline, bar, benefit = text.strip().partition(" | ")
    words = headline.split()
    if not bar or "|" in benefit or "!" in text or len(words) not in _HEADLINE_WORDS:
        return False
    if headline[-1] in ".?:;," or not words[0][0].isupper():
        return False
    in_sentence_case = all(word == word.lower() for word in words[1:])
    right_length = len(benefit.split()) in _BENEFIT_WORDS
    return in_sentence_case and right_length and _BENEFIT.match(benefit) is not None


def training_rows() -> list[dict[str, object]]:
    rng = random.Random("house style")
    asked = [
        (product, kind, REQUESTS, PER_PRODUCT)
        for kind, (trained, *_) in KINDS.items()
        for product in trained
    ]
    rows = [row for product in asked for row in _rows(rng, *product)]
    rng.shuffle(rows)
    return rows


def unseen_rows() -> list[dict[str, object]]:
    rng = random.Random("house style, unseen")
    asked = [
        (product, kind, UNSEEN_REQUESTS, 1)
        for kind, (_, held_out, *_) in KINDS.items()
        for product in held_out
    ]
    return [row for product in asked for row in _rows(rng, *product)][:UNSEEN_PROMPTS]


def _rows(
    rng: random.Random, product: str, kind: str, requests: tuple[str, ...], count: int
) -> Iterator[dict[str, object]]:
    """Requests with answers; no request comes twice."""
    _, _, qualities, benefits = KINDS[kind]
    asked = [(request, quality) for request in requests for quality in qualities]
    for request, quality in rng.sample(asked, count):
        made = [_filled(headline, product, quality) for headline in HEADLINES]
        fitting = [headline for headline in made if len(headline.split()) in _HEADLINE_WORDS]
        short = [_filled(headline, product, quality) for headline in SHORT_HEADLINES]
        headline = rng.choice(fitting or short)
        benefit = f"You {rng.choice(benefits)}."
        yield _row(_filled(request, product, quality), f"{headline} | {benefit}")


def _filled(template: str, product: str, quality: str) -> str:
    article = "an" if product[0] in "aeio" else "a"
    text = template.replace("a {product}", f"{article} {{product}}")
    text = text.replace("A {product}", f"{article.capitalize()} {{product}}")
    return text.format(product=product, quality=quality)


def _row(request: str, answer: str) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": request},
            {"role": "assistant", "content": answer},
        ]
    }


def main() -> None:
    for path, rows in ((TRAIN, training_rows()), (UNSEEN, unseen_rows())):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{path.name}: {len(rows)} lines")


if __name__ == "__main__":
    main()
