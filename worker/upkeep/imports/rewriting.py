"""Configurations written anew from what is known of them; the rest is left out, and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from worker.tuning.data.example import Refused, shown
from worker.upkeep.imports import strict_json
from worker.upkeep.imports.dangers import refuse_dangers
from worker.upkeep.imports.settings_kinds import Table, integer
from worker.upkeep.imports.settings_of_models import CONFIG, SECTIONS
from worker.upkeep.imports.settings_of_pipelines import DENOISER, SCHEDULER
from worker.upkeep.imports.settings_of_texts import (
    ADAPTER,
    ADAPTER_LEFT_OUT,
    GENERATION,
    PICTURES,
    POOLING,
    SENTENCES,
    SPECIAL_TOKENS,
    TOKENIZER,
    token,
)

INVALID, ADAPTER_CODE = "invalid_setting", "adapter_unsupported"
MOST_BYTES = 2**24
"""Of one configuration; a tokenizer's may list every token that it has."""
MOST_DROPPED = 200
_CODES = {"tokenizer_class": "tokenizer_unsupported", "chat_template": "chat_template_refused"}
"""Settings whose refusal has a code of its own."""
_MODULES = {
    f"sentence_transformers.models.{name}": name for name in ("Transformer", "Pooling", "Normalize")
} | {
    f"sentence_transformers.{module}.{name}": name
    for module, name in (
        ("base.modules.transformer", "Transformer"),
        ("sentence_transformer.modules.pooling", "Pooling"),
        ("sentence_transformer.modules.normalize", "Normalize"),
    )
}
"""Classes of sentence-transformers that the embedding engine stands in for."""


@dataclass
class Rewritten:
    """What became of a model's configurations."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By path, as they are stored."""
    documents: dict[str, Any] = field(default_factory=dict)
    """The same, decoded."""
    dropped: list[str] = field(default_factory=list)
    """``path: setting`` of what was left out, up to ``MOST_DROPPED``."""
    dropped_n: int = 0

    def drop(self, path: str, name: str) -> None:
        self.dropped_n += 1
        if len(self.dropped) < MOST_DROPPED:
            self.dropped.append(f"{shown(path)}: {shown(name)}")

    def put(self, path: str, document: Any) -> None:
        self.documents[path] = document
        self.files[path] = strict_json.encode(document)


Drop = Callable[[str], None]
Rewrite = Callable[[Any, Drop], Any]


def rewrite(path: str, data: bytes, how: Rewrite, into: Rewritten) -> None:
    """Adds the file as it shall be stored. Raises Refused, naming the setting where it can."""
    document = strict_json.decode(data)
    refuse_dangers(document)
    into.put(path, how(document, lambda name: into.drop(path, name)))


def config(document: Any, drop: Drop) -> dict[str, Any]:
    """A model's ``config.json``, and that of its two halves where it has them."""
    given = _object(document)
    kept = _kept({n: v for n, v in given.items() if n not in SECTIONS}, CONFIG, drop)
    for name in SECTIONS:
        if given.get(name) is not None:
            kept[name] = _kept(_object(given[name]), CONFIG, _within(drop, name))
    return kept


def by(table: Table) -> Rewrite:
    """A configuration without sections."""
    return lambda document, drop: _kept(_object(document), table, drop)


def adapter(document: Any, drop: Drop) -> dict[str, Any]:
    """``adapter_config.json``: of a plain LoRA. A setting that is not known must say nothing."""
    kept = {}
    for name, value in _object(document).items():
        if name in ADAPTER_LEFT_OUT:
            drop(name)
        elif name in ADAPTER:
            if value is not None and not ADAPTER[name](value):
                raise Refused(ADAPTER_CODE, f"'{name}' has a value that is not served here", name)
            kept[name] = value
        elif value:
            raise Refused(ADAPTER_CODE, f"'{shown(name)}' is not served here", shown(name))
    return kept


def added_tokens(document: Any, drop: Drop) -> dict[str, Any]:
    """``added_tokens.json``: numbers of tokens by their texts."""
    given = _object(document)
    if not all(token(name) and integer(place) for name, place in given.items()):
        raise Refused(INVALID, "it is not an object of tokens' numbers")
    return given


def modules(document: Any, drop: Drop) -> list[dict[str, Any]]:
    """``modules.json`` of sentence-transformers. Raises Refused for a module that is not computed
    here."""
    if not isinstance(document, list) or not all(isinstance(one, dict) for one in document):
        raise Refused(INVALID, "it is not a list of modules")
    kept = []
    for place, module in enumerate(document):
        kind, path = _MODULES.get(str(module.get("type"))), module.get("path")
        if kind is None:
            message = f"the module {shown(str(module.get('type')))} is not computed here"
            raise Refused("architecture_unsupported", message, "type")
        if path not in {"", f"{place}_{kind}"}:
            raise Refused(INVALID, "a module's 'path' is not where it belongs", "path")
        name = f"sentence_transformers.models.{kind}"
        kept.append({"idx": place, "name": str(place), "path": path, "type": name})
    return kept


def weights_index(document: Any, drop: Drop) -> dict[str, Any]:
    """Which file has which tensor; that it is so is for ``weights`` to see."""
    places = _object(document).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise Refused("weights_index", "'weight_map' is not an object of file names", "weight_map")
    return {"metadata": {}, "weight_map": places}


TRANSFORMERS: dict[str, Rewrite] = {
    "config.json": config,
    "generation_config.json": by(GENERATION),
    "tokenizer_config.json": by(TOKENIZER),
    "special_tokens_map.json": by(SPECIAL_TOKENS),
    "added_tokens.json": added_tokens,
    "preprocessor_config.json": by(PICTURES),
    "model.safetensors.index.json": weights_index,
}
"""Files of a transformers model that are written anew."""
SENTENCE_FILES: dict[str, Rewrite] = {
    "modules.json": modules,
    "sentence_bert_config.json": by(SENTENCES),
    "1_Pooling/config.json": by(POOLING),
}
ADAPTERS: dict[str, Rewrite] = {"adapter_config.json": adapter}
DENOISERS: dict[str, Rewrite] = {
    "config.json": by(DENOISER),
    "diffusion_pytorch_model.safetensors.index.json": weights_index,
}
SCHEDULERS: dict[str, Rewrite] = {"scheduler_config.json": by(SCHEDULER)}


def _object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise Refused(strict_json.INVALID, "it is not a JSON object")
    return document


def _within(drop: Drop, section: str) -> Drop:
    return lambda name: drop(f"{section}.{name}")


def _kept(given: dict[str, Any], table: Table, drop: Drop) -> dict[str, Any]:
    kept = {}
    for name, value in given.items():
        check = table.get(name)
        if check is None:
            drop(name)
        elif value is None or check(value):
            kept[name] = value
        else:
            code = _CODES.get(name, INVALID)
            raise Refused(code, f"'{name}' has a value that is not taken", name)
    return kept
