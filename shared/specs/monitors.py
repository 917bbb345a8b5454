"""What a monitor is asked: which texts, by which model, and when to tell."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

ENDPOINT = "/v1/classifications"
MOST_MONITORS = 100
"""Of one tenant."""
MOST_TEXTS_A_CALL = 1_000
MOST_CHARACTERS = 5_000
"""Of a text."""
MOST_WAITING = 50_000
"""Texts of one monitor that are still to be judged."""
TEXTS_A_BATCH = 5_000
TEXT_DAYS = 7
"""A text that was not judged by then is given up."""
WINDOW_DAYS = 400
"""Counts are kept so long."""
FILE_SECONDS = 86_400
"""Life of the files of a monitor's batches, which have the texts."""
LEAST_MINUTES, MOST_MINUTES = 1, 7 * 24 * 60
DEFAULT_MINIMUM = 20

Label = Annotated[str, Field(min_length=1, max_length=200)]
MonitoredText = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]


def passes_limit(labels: dict[str, int], label: str, *, limit: float, minimum: int) -> bool:
    """Whether the share of ``label`` among the judged texts of a window is over ``limit``; never
    with fewer judged texts than ``minimum``."""
    judged = sum(labels.values())
    return judged >= max(1, minimum) and labels.get(label, 0) > limit * judged
