"""Endpoints that no engine serves by itself: their calls are translated into another endpoint's.

A job keeps its own endpoint and body; a worker translates the body when it reads the row, and the
engine's answer back before it books it. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Collection

ENGINE_ENDPOINTS = {
    "/v1/responses": "/v1/chat/completions",
    "/v1/moderations": "/v1/classifications",
}
"""What engines are asked in place of each."""

RESPONSES, MODERATIONS = ENGINE_ENDPOINTS


def serves(endpoints: Collection[str], endpoint: str) -> bool:
    """Whether a model with these ``endpoints`` can answer ``endpoint``."""
    return endpoint in endpoints or ENGINE_ENDPOINTS.get(endpoint) in endpoints
