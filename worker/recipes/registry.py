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
STORIES: dict[str, str] = {
    "evaluate": "worker.recipes.measuring:tell",
    "optimize": "worker.recipes.optimizing:tell",
}
"""What is run as trainings are and trains nothing: functions of a folder, its plan and a
reporter."""
STANDALONE: dict[str, str] = {
    "fake": "worker.recipes.fake:run",
    "fake_evaluate": "worker.recipes.fake_measuring:evaluate",
    "fake_optimize": "worker.recipes.fake_measuring:optimize",
}
"""Functions of a folder that do everything themselves, without torch: for tests of the plant."""


def find(name: str, where: dict[str, str] = RECIPES) -> Any:
    """The class or function behind a name. Raises KeyError."""
    module, _, attribute = where[name].partition(":")
    return getattr(import_module(module), attribute)
