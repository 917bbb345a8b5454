"""What a tenant's weight may be: the API's bounds, and the database's."""

from __future__ import annotations

LEAST_WEIGHT = 0.001
"""Less would make virtual times of the whole pool so large that others' seconds vanish in them."""
MOST_WEIGHT = 1000
