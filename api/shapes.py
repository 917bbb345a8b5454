"""Names of the JSON shapes that routes answer with, without their classes.

``from api.shapes import Job`` gives the name of a class in one of the ``*_objects`` modules. Only
``api.document`` looks the classes up, when somebody asks for the document: building the models
would otherwise be an eighth of the start of every process that never shows them.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import api

if TYPE_CHECKING:
    from pydantic import BaseModel

OBJECTS = "objects"
"""How the names of the modules with shapes end."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Stands for the class of this name."""

    name: str

    def resolve(self) -> type[BaseModel]:
        """Imports every module with shapes. Raises KeyError for a name that none of them has."""
        return _classes()[self.name]


@cache
def _classes() -> dict[str, type[BaseModel]]:
    modules = [
        import_module(f"api.{module.name}")
        for module in pkgutil.iter_modules(api.__path__)
        if module.name.endswith(OBJECTS)
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
    }


def __getattr__(name: str) -> Shape:
    if name.startswith("_"):
        raise AttributeError(name)
    return Shape(name)
