"""Productions that look things up, with an embedding model that counts words and a classifier that
has taste. Import ``library_fixture`` into a test module to have the fixture ``library`` there."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.db.models import sync_catalog
from shared.models_catalog import ModelEntry
from tests.integration.api_case import MODEL
from tests.integration.production_case import Asked, Press, Said, echo

EMBEDDER = "all-minilm-l6-v2"
TASTE = "taste"
SECOND = "models/writer:2"
WORDS = (
    "red",
    "blue",
    "green",
    "wood",
    "steel",
    "returns",
    "days",
    "shipping",
    "delivery",
    "price",
)
"""The dimensions of a vector."""
CHAT = ["/v1/completions", "/v1/chat/completions"]

Score = Callable[[str], float]


class Library(Press):
    """A press with more models, and files to look things up in."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        with self.begin() as connection:
            sync_catalog(
                connection,
                [
                    ModelEntry(id=MODEL, engine="fake", endpoints=CHAT),
                    ModelEntry(id=SECOND, engine="fake", endpoints=CHAT),
                    ModelEntry(id=EMBEDDER, engine="fake", endpoints=["/v1/embeddings"]),
                    ModelEntry(id=TASTE, engine="fake", endpoints=["/v1/classifications"]),
                ],
            )

    def file(self, content: str, name: str) -> str:
        return self.data(content.encode(), name)

    @property
    def chats(self) -> list[Asked]:
        """What was asked of writers, in the order of the rows."""
        asked = [one for one in self.asked if "messages" in one.body]
        return sorted(asked, key=lambda one: (one.round, one.phase, one.place))

    @property
    def embedded(self) -> list[str]:
        """Custom ids of calls for embeddings."""
        return [one.custom_id for one in self.asked if "encoding_format" in one.body]


def vector(text: str) -> list[float]:
    words = re.findall(r"[a-z]+", text.lower())
    return [float(words.count(word)) for word in WORDS]


def embeddings(asked: Asked) -> Said:
    given = asked.body["input"]
    assert asked.body["encoding_format"] == "base64"
    data = []
    for at, text in enumerate([given] if isinstance(given, str) else given):
        packed = struct.pack(f"<{len(WORDS)}f", *vector(text))
        data.append({"index": at, "embedding": base64.b64encode(packed).decode()})
    return Said(body={"object": "list", "data": data})


def scores(asked: Asked, score: Score) -> Said:
    good = score(asked.body["input"])
    listed = [{"label": "good", "score": good}, {"label": "bad", "score": 1 - good}]
    return Said(body={"object": "list", "data": [{"index": 0, **listed[0], "scores": listed}]})


def every(
    writer: Callable[[Asked], str | Said] = echo, score: Score = lambda text: 0.5
) -> Callable[[Asked], str | Said]:
    """Answers whatever is called."""

    def answer(asked: Asked) -> str | Said:
        if "messages" in asked.body:
            return writer(asked)
        return embeddings(asked) if "encoding_format" in asked.body else scores(asked, score)

    return answer


def messages(asked: Asked) -> list[Any]:
    return [message["content"] for message in asked.body["messages"]]


@pytest.fixture(name="library")
def library_fixture(database_url: str, tmp_path: Path) -> Iterator[Library]:
    case = Library(database_url, tmp_path)
    yield case
    case.close()
