"""Engines by name. Naming one costs nothing; its module is imported when a child creates it."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from worker.engines.base import Engine, EngineFailed, OnProgress
from worker.engines.protocol import Load

ENGINES: dict[str, str] = {
    "text": "worker.engines.text:create",
    "embedding": "worker.engines.embedding:create",
    "classifier": "worker.engines.classifier:create",
    "image": "worker.engines.image:create",
    "sampler": "worker.engines.sampler:create",
    "speech": "worker.engines.speech:create",
    "video": "worker.engines.video:create",
    "composer": "worker.engines.composer:create",
    "fake": "worker.engines.fake:create",
}
"""Name → ``module:function``; the function is ``(load: Load, progress: OnProgress) -> Engine``."""


def create_engine(load: Load, progress: OnProgress) -> Engine:
    """Imports the engine's module and loads its model.

    Raises EngineFailed with code ``unknown_engine``, and whatever the engine's own ``create``
    raises: EngineFailed when it knows why it can't load.
    """
    try:
        target = ENGINES[load.engine]
    except KeyError:
        known = ", ".join(ENGINES)
        raise EngineFailed("unknown_engine", f"no engine '{load.engine}' (of {known})") from None
    module, _, function = target.partition(":")
    return cast(Engine, getattr(import_module(module), function)(load, progress))
