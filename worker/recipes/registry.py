"""Every recipe by name, imported on use: naming one costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

RECIPES: dict[str, str] = {
    "supervised": "worker.recipes.sft:SupervisedFineTuning",
    "dpo": "worker.recipes.dpo:DirectPreferenceOptimization",
    "text_classification": "worker.recipes.text_classification:TextClassification",
    "token_classification": "worker.recipes.token_classification:TokenClassification",
    "text_to_image": "worker.recipes.text_to_image:TextToImage",
    "diffusion": "worker.recipes.diffusion:Diffusion",
    "gan": "worker.recipes.gan:Gan",
    "vae": "worker.recipes.vae:Vae",
}
STANDALONE: dict[str, str] = {"fake": "worker.recipes.fake:run"}
"""Functions of a folder that do everything themselves, without torch: for tests of the plant."""


def find(name: str, where: dict[str, str] = RECIPES) -> Any:
    """The class or function behind a name. Raises KeyError."""
    module, _, attribute = where[name].partition(":")
    return getattr(import_module(module), attribute)
