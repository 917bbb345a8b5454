"""``model_index.json`` of a diffusers model, judged before anything that it names is loaded.

The file says which classes the pipeline is made of. Only classes that diffusers and transformers
bring themselves are let through: code that lies beside the weights is never run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from worker.engines.base import EngineFailed

INDEX = "model_index.json"
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z", re.ASCII)
_MAX_BYTES = 1 << 20


def check_index(folder: Path) -> None:
    """Raises EngineFailed ``model_load_failed`` unless the folder's index is harmless."""
    refuse_unless_harmless(_read(folder / INDEX))


def refuse_unless_harmless(index: Any) -> None:
    """Judges a decoded index. Raises EngineFailed ``model_load_failed``."""
    if not isinstance(index, dict):
        raise _refusal("is not an object")
    _check_pipeline(index.get("_class_name"))
    for name, value in index.items():
        if not isinstance(name, str) or not _WORD.match(name.removeprefix("_")):
            raise _refusal(f"names the component {name!r}")
        if not name.startswith("_"):
            _check_entry(name, value)


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _refusal("is too large")
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _refusal(f"cannot be read: {type(error).__name__}") from None


def _check_pipeline(name: Any) -> None:
    import diffusers

    if not isinstance(name, str) or not _WORD.match(name):
        raise _refusal("names a pipeline class of its own")
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise _refusal(f"names the pipeline class {name}, which diffusers does not have")


def _check_entry(name: str, value: Any) -> None:
    """A component is a pair of library and class; anything else must be a plain setting."""
    if value is None or isinstance(value, str | int | float):
        return
    if not isinstance(value, list):
        raise _refusal(f"has no plain value for {name}")
    if all(part is None or isinstance(part, int | float) for part in value):
        return
    if len(value) != 2 or not all(isinstance(part, str) and _WORD.match(part) for part in value):  # noqa: PLR2004 - library, class
        raise _refusal(f"names {value!r} as its {name}")
    library, class_name = value
    if not isinstance(_find(library, class_name), type):
        raise _refusal(f"wants {library}.{class_name} as its {name}, which is not known here")


def _find(library: str, name: str) -> Any:
    """The class, from diffusers, transformers or the modules of diffusers' own pipelines."""
    import diffusers
    import transformers
    from diffusers import pipelines

    if library == "diffusers":
        return getattr(diffusers, name, None)
    if library == "transformers":
        # An automatic class may follow code in the repository; saved models name their own.
        return None if name.startswith("Auto") else _transformers_class(transformers, name)
    module = getattr(pipelines, library, None)
    return getattr(module, name, None)


def _transformers_class(transformers: Any, name: str) -> Any:
    found = getattr(transformers, name, None)
    if found is None and name.endswith("FeatureExtractor"):
        # Older models name CLIPFeatureExtractor, which diffusers maps to its successor.
        found = getattr(transformers, name.replace("FeatureExtractor", "ImageProcessor"), None)
    return found


def _refusal(why: str) -> EngineFailed:
    return EngineFailed("model_load_failed", f"{INDEX} {why}")
