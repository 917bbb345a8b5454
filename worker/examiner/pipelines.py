"""The sandbox's look at components of diffusers' pipelines. Only the sandbox imports this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.pipelines.stable_diffusion import safety_checker
from diffusers.utils import logging

from worker.examiner.examining import (
    attempt,
    class_of,
    compare,
    refuse_differences,
    refuse_tables,
)

_SCHEDULER, _READERS = "Scheduler", ("ImageProcessor", "FeatureExtractor")

logging.set_verbosity_error()


def examine_component(
    folder: Path, library: str, name: str, tensors: dict[str, torch.Tensor]
) -> None:
    """Raises Bad unless the component can be made of what is in ``folder``, and its tensors are
    just those that it has."""
    if name.endswith(_READERS):
        return
    if name.endswith(_SCHEDULER):
        kind = getattr(diffusers, name)
        attempt("invalid_setting", lambda: kind.from_config(_settings(folder, kind)))
    elif "Token" in name:
        tokenizer_class = class_of(name)
        attempt(
            "tokenizer_refused",
            lambda: tokenizer_class.from_pretrained(folder, local_files_only=True),
        )
    elif library == "diffusers":
        _compare(folder, getattr(diffusers, name), tensors)
    elif library == "transformers":
        compare(folder, class_of(name), tensors)
    else:
        compare(folder, getattr(safety_checker, name), tensors)


def _compare(folder: Path, kind: Any, tensors: dict[str, torch.Tensor]) -> None:
    def build() -> Any:
        with init_empty_weights(include_buffers=True):
            return kind.from_config(_settings(folder, kind))

    model = attempt("invalid_setting", build)
    refuse_tables(model, tensors)
    expected, given = model.state_dict(), dict(tensors)
    model._fix_state_dict_keys_on_load(given)
    both = expected.keys() & given.keys()
    mismatched = [name for name in both if expected[name].shape != given[name].shape]
    missing, unexpected = expected.keys() - given.keys(), given.keys() - expected.keys()
    refuse_differences(mismatched, missing, unexpected, kind)


def _settings(folder: Path, kind: Any) -> Any:
    return kind.load_config(folder, local_files_only=True)
