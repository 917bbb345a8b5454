"""Pools: the classes of work that workers serve."""

from __future__ import annotations

import re

UPKEEP = "upkeep"
"""Validates and assembles batches, and runs the periodic passes."""

TRAIN = "train"
"""Runs recipes, each in a process tree of its own. Every pool but these two has engines."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")


def is_pool_name(pool: str) -> bool:
    """Whether a queue can be named after it: lower case, 32 characters at most."""
    return _NAME.match(pool) is not None
