"""How right found entities are, and what there is to be better than. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

from worker.engines.entities import OUTSIDE, as_bio, entities_of
from worker.recipes.classification_reports import LabelScore, label_score

Tagged: TypeAlias = tuple[Sequence[str], Sequence[str]]
"""The words of a sentence and their tags."""


class EntityCounts:
    """Right, said and true entities of each kind: strictly, both ends and the kind must agree."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = list(kinds)
        self.right: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.true: Counter[str] = Counter()

    def add(self, said: Sequence[str], true: Sequence[str]) -> None:
        """The tags of one sentence."""
        found, expected = set(entities_of(said)), set(entities_of(true))
        self.right.update(entity.label for entity in found & expected)
        self.said.update(entity.label for entity in found)
        self.true.update(entity.label for entity in expected)

    def as_numbers(self) -> dict[str, float]:
        return {
            f"{name} {place}": float(counter[kind])
            for name, counter in self._counters()
            for place, kind in enumerate(self.kinds)
        }

    def replace(self, numbers: dict[str, float]) -> None:
        """The inverse of ``as_numbers``."""
        for name, counter in self._counters():
            for place, kind in enumerate(self.kinds):
                counter[kind] = int(numbers[f"{name} {place}"])

    def scores(self) -> list[LabelScore]:
        return [
            label_score(k, right=self.right[k], said=self.said[k], true=self.true[k])
            for k in self.kinds
        ]

    def overall(self) -> LabelScore:
        """Over the entities of all kinds together."""
        right, said, true = (counter.total() for _, counter in self._counters())
        return label_score("all", right=right, said=said, true=true)

    def _counters(self) -> list[tuple[str, Counter[str]]]:
        return [("right", self.right), ("said", self.said), ("true", self.true)]


def kinds_of(labels: Sequence[str]) -> list[str]:
    """What the tags of a model call an entity, in their order."""
    opening = [tag for tag in labels if tag != OUTSIDE and not tag.startswith("I-")]
    return list(dict.fromkeys(tag.removeprefix("B-") for tag in opening))


def tag_labels(planned: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every tag that the model knows: outside, the data's, and the other half of each kind, so that
    a kind seen in single words only can still be told from a run of them."""
    tags = {*planned, *(tag for row in rows for tag in row["tags"]), OUTSIDE}
    for tag in list(tags):
        if tag.startswith(("B-", "I-")):
            tags |= {f"B-{tag[2:]}", f"I-{tag[2:]}"}
    return sorted(
        tags, key=lambda tag: (tag != OUTSIDE, tag.removeprefix("B-").removeprefix("I-"), tag)
    )


def remembering(
    train: Sequence[Tagged], valid: Sequence[Tagged], kinds: Sequence[str]
) -> EntityCounts:
    """What looking words up gets: each has the tag that it mostly had in training."""
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for words, tags in train:
        for word, tag in zip(words, tags, strict=True):
            seen[word.lower()][tag] += 1
    usual = {word: max(sorted(found), key=found.__getitem__) for word, found in seen.items()}
    counts = EntityCounts(kinds)
    for words, tags in valid:
        looked_up = [usual.get(word.lower(), OUTSIDE) for word in words]
        counts.add(as_bio(looked_up), tags)
    return counts
