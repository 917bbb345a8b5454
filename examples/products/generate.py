"""Writes ``products.csv``: products that nobody sells, the same on every machine.

python examples/products/generate.py [ROWS] > products.csv
"""

from __future__ import annotations

import csv
import io
import random
import sys
from typing import NamedTuple

ROWS = 2_000
SEED = 20_260_101
COLUMNS = ("sku", "name", "category", "material", "colour", "features", "price", "room")


class Kind(NamedTuple):
    """A category, and what its products can be."""

    category: str
    things: tuple[str, ...]
    materials: tuple[str, ...]
    features: tuple[str, ...]
    prices: tuple[int, int]
    rooms: tuple[str, ...]


KINDS = (
    Kind(
        "seating",
        ("armchair", "stool", "bench", "rocking chair", "desk chair", "sofa"),
        ("oak", "beech", "steel", "rattan", "walnut"),
        (
            "folds flat", "has a washable cover", "carries 150 kg", "needs no tools",
            "turns without a sound", "stacks six high", "comes with a cushion",
        ),
        (39, 899),
        ("living room", "study", "hall", "garden"),
    ),
    Kind(
        "lighting",
        ("floor lamp", "desk lamp", "lantern", "wall light", "pendant"),
        ("brass", "linen", "glass", "bamboo", "paper"),
        (
            "dims in five steps", "runs 40 hours on one charge", "clips to a shelf",
            "takes any E27 bulb", "remembers its brightness", "is safe in the rain",
        ),
        (15, 329),
        ("bedroom", "study", "hall", "garden"),
    ),
    Kind(
        "kitchen",
        ("teapot", "bread board", "frying pan", "pepper mill", "storage jar", "kettle"),
        ("cast iron", "stoneware", "olive wood", "enamel", "copper"),
        (
            "goes in the dishwasher", "keeps tea hot for two hours", "works on induction",
            "holds 1.2 litres", "never sticks", "has a spare lid", "is mended for free",
        ),
        (9, 149),
        ("kitchen",),
    ),
    Kind(
        "outdoor",
        ("hammock", "plant stand", "watering can", "bird feeder", "picnic blanket"),
        ("canvas", "zinc", "cedar", "wool", "recycled plastic"),
        (
            "packs into its own bag", "stays dry underneath", "survives frost",
            "holds 9 litres", "hangs from one hook", "is made of old sails",
        ),
        (12, 199),
        ("garden", "balcony"),
    ),
)  # fmt: skip
COLOURS = (
    "moss green", "brick red", "slate blue", "oat", "charcoal", "mustard", "plum", "chalk white",
    "rust", "sea green", "copper", "sand",
)  # fmt: skip
FIRST = (
    "Alder", "Bracken", "Cove", "Dune", "Ember", "Fjord", "Glen", "Heron", "Iris", "Juniper",
    "Kestrel", "Larch", "Mallow", "Nettle", "Otter", "Pine", "Quill", "Rowan", "Sorrel", "Thistle",
)  # fmt: skip


def products(count: int = ROWS) -> list[tuple[str, ...]]:
    """Rows in the order of ``COLUMNS``."""
    draw = random.Random(SEED)  # noqa: S311 - nobody is to be surprised
    return [_product(draw, number) for number in range(1, count + 1)]


def _product(draw: random.Random, number: int) -> tuple[str, ...]:
    kind = draw.choice(KINDS)
    thing = draw.choice(kind.things)
    features = draw.sample(kind.features, k=draw.randint(2, 3))
    low, high = kind.prices
    return (
        f"PR-{number:05d}",
        f"{draw.choice(FIRST)} {thing}",
        kind.category,
        draw.choice(kind.materials),
        draw.choice(COLOURS),
        "; ".join(features),
        f"{draw.randint(low, high)}.{draw.choice(('00', '50', '90'))}",
        draw.choice(kind.rooms),
    )


def as_csv(count: int = ROWS) -> str:
    """The whole file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(products(count))
    return text.getvalue()


if __name__ == "__main__":
    sys.stdout.write(as_csv(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
