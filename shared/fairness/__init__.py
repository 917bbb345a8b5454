"""Whose turn it is: start-time fair queueing over tenants, with affinity to loaded models.

Pure: the claim reads a line-up from the database, asks here which shards to take, and takes those.
The simulator of ``bench`` asks the same code.
"""

from __future__ import annotations

from shared.fairness.bounds import longest_wait, rival_work
from shared.fairness.choosing import OWN_STEPS, PATIENCE, Pick, choose
from shared.fairness.line import InLine, Waiting

__all__ = [
    "OWN_STEPS",
    "PATIENCE",
    "InLine",
    "Pick",
    "Waiting",
    "choose",
    "longest_wait",
    "rival_work",
]
