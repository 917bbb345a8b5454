"""Which reader understands an upload, by recipe and by the name of the file."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from shared.specs.fine_tuning import RecipeName
from worker.tuning.data.chat import read_supervised
from worker.tuning.data.classification import read_labelled_texts
from worker.tuning.data.example import Item
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.pictures import read_captioned, read_labelled
from worker.tuning.data.preferences import read_preferences
from worker.tuning.data.source import Source
from worker.tuning.data.tagging import read_tagged

CLASSIFIERS: frozenset[str] = frozenset({"text_classification", "token_classification"})
"""Recipes that need at least two labels."""
DRAWING: frozenset[str] = frozenset({"text_to_image", "diffusion", "gan", "vae"})
"""Recipes whose examples have a picture."""
STRATIFIED: frozenset[str] = frozenset({"text_classification", "diffusion", "gan", "vae"})
"""Recipes whose examples have one label each, which both splits should have alike."""


def read_items(
    recipe: RecipeName, source: Source, limits: DataLimits, scratch: Path | None = None
) -> Generator[Item, None, None]:
    """Every example of an upload and everything that is wrong with it, as they come.

    ``scratch`` is where a ZIP is copied to for the time of reading (None: the system's folder).
    Pictures are read only when an example's ``picture`` is called, and before the next one is
    asked for. Raises what opening and reading the source raises.
    """
    match recipe:
        case "supervised":
            yield from read_supervised(source, limits)
        case "dpo":
            yield from read_preferences(source, limits)
        case "text_classification":
            yield from read_labelled_texts(source, limits)
        case "token_classification":
            yield from read_tagged(source, limits)
        case "text_to_image":
            yield from read_captioned(source, limits, scratch)
        case "diffusion" | "gan" | "vae":
            yield from read_labelled(source, limits, scratch)
