"""The catalog: what may be asked for by name, from a TOML file into the models table.

```toml
[[models]]
id = "smollm2-135m-instruct"
engine = "text"   # or embedding, classifier, image, sampler, speech, video, composer, fake
source = "models/SmolLM2-135M-Instruct"   # a directory (relative to the file) or a hub id
settings = { default_max_tokens = 512 }
```
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.specs.aliases import is_alias_name

GENERATION_ENDPOINTS = ["/v1/chat/completions", "/v1/completions"]
IMAGE_ENDPOINTS = ["/v1/images/generations", "/v1/images/edits", "/v1/images/variations"]
DEFAULT_ENDPOINTS = {
    "text": GENERATION_ENDPOINTS,
    "embedding": ["/v1/embeddings"],
    "image": IMAGE_ENDPOINTS,
    "speech": ["/v1/audio/speech"],
    "video": ["/v1/videos"],
    "composer": ["/v1/videos", "/v1/videos/compositions"],
    "classifier": ["/v1/classifications"],
    "sampler": ["/v1/images/generations"],
    "fake": [
        "/v1/classifications",
        *GENERATION_ENDPOINTS,
        "/v1/embeddings",
        *IMAGE_ENDPOINTS,
        "/v1/audio/speech",
        "/v1/videos",
        "/v1/videos/compositions",
    ],
}
DEFAULT_POOLS = {
    "image": "image",
    "sampler": "image",
    "speech": "speech",
    "video": "video",
    "composer": "video",
}
DEFAULT_POOL = "text"


class CatalogError(Exception):
    """The catalog file can't be used; the message names the entry and the field."""


class Price(BaseModel):
    """What a model's work is charged at; whatever is not named has no price."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    input_per_million: Annotated[float, Field(ge=0)] | None = None
    """Tokens."""
    output_per_million: Annotated[float, Field(ge=0)] | None = None
    """Tokens."""
    per_image: Annotated[float, Field(ge=0)] | None = None
    per_second: Annotated[float, Field(ge=0)] | None = None
    """Of sound and video."""
    training_per_million: Annotated[float, Field(ge=0)] | None = None
    """Tokens that a training reads."""
    training_per_second: Annotated[float, Field(ge=0)] | None = None
    """That a training takes, over all attempts."""


class ModelEntry(BaseModel):
    """One model that tenants may name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=256)]
    engine: Annotated[str, Field(pattern="^[a-z_]+$")]
    source: str = ""
    pool: str = ""
    """Empty: the one its engine is usually served by."""
    endpoints: list[str] = []
    settings: dict[str, Any] = {}
    owned_by: str = "pressrun"
    price: Price | None = None
    """What usage costs, and counts for budgets; also of models that are tuned from this one."""

    def serving_pool(self) -> str:
        return self.pool or DEFAULT_POOLS.get(self.engine, DEFAULT_POOL)

    def served_endpoints(self) -> list[str]:
        return self.endpoints or DEFAULT_ENDPOINTS.get(self.engine, [])


class _CatalogFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: list[ModelEntry]


def read_catalog(path: Path) -> list[ModelEntry]:
    """The entries of the file; directories made absolute. Raises CatalogError."""
    try:
        entries = _CatalogFile.model_validate(tomllib.loads(path.read_text())).models
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CatalogError(f"{path}: {where}: {first['msg']}") from None
    ids = [entry.id for entry in entries]
    for name in filter(is_alias_name, ids):
        raise CatalogError(f"{path}: {name} is a name for an alias: tenants may have one by it")
    repeated = {name for name in ids if ids.count(name) > 1}
    if repeated:
        raise CatalogError(f"{path}: more than one entry for {', '.join(sorted(repeated))}")
    return [_resolve(entry, path.resolve().parent) for entry in entries]


def _resolve(entry: ModelEntry, folder: Path) -> ModelEntry:
    local = folder / entry.source
    if entry.source and local.is_dir():
        return entry.model_copy(update={"source": str(local)})
    return entry
