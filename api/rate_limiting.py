"""Who is let in: nobody of a tenant that is switched off, others as often as they may call.

Every request with a tenant's key counts, whatever it asks for: a poll or a long-poll is one, an
event stream is one when it is opened. Links of their own, which carry no key, do not count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from flask import Response, after_this_request
from sqlalchemy import Engine

from api.caching import RecentCache
from api.limits import MAX_CACHED_KEYS
from shared.db.rate_buckets import take_request
from shared.db.security import acting_for
from shared.db.tenants import TenantTerms, get_terms
from shared.errors import RateLimitExceeded, TenantDisabled, Unauthenticated
from shared.quotas.limits import Limits

TERMS_CACHE_SECONDS = 1.0
"""How old what is known of a tenant may be: a new limit of calls, or an end to all of them, is
heeded by every process within this. Limits of work are looked at again where it is accepted."""

SECOND = 1000
"""In milliseconds."""


class Rate(NamedTuple):
    """Of a tenant's calls, after one of them."""

    limit: int
    """That a full bucket holds."""
    remaining: int
    reset_seconds: float
    """Until it is full."""

    @property
    def headers(self) -> dict[str, str]:
        """As OpenAI says it."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": spelled(self.reset_seconds),
        }


class Gate:
    """Lets requests of tenants in. Threads share it."""

    def __init__(self, engine: Engine, *, cache_seconds: float = TERMS_CACHE_SECONDS) -> None:
        """``engine`` must autocommit."""
        self._engine = engine
        self._cache_seconds = cache_seconds
        self._terms: RecentCache[str, TenantTerms] = RecentCache(MAX_CACHED_KEYS)

    def terms(self, tenant_id: str) -> TenantTerms:
        """As they were a second ago."""
        known = self._terms.get(tenant_id)
        if known is None:
            with acting_for(tenant_id), self._engine.connect() as connection:
                known = get_terms(connection, tenant_id)
            if known is None:
                raise Unauthenticated("this API key is not valid")
            self._terms.put(tenant_id, known, self._cache_seconds)
        return known

    def stands_open(self, tenant_id: str) -> bool:
        """Whether there is nothing to ``enter`` for."""
        terms = self.terms(tenant_id)
        return not terms.disabled and terms.limits.requests_per_second is None

    def enter(self, tenant_id: str) -> None:
        """Counts a request, whose response says what is left. Raises TenantDisabled or
        RateLimitExceeded."""
        terms = self.terms(tenant_id)
        if terms.disabled:
            raise TenantDisabled("this account is switched off: ask whoever runs the server")
        if terms.limits.requests_per_second is not None:
            self._count(tenant_id, terms.limits, terms.limits.requests_per_second)

    def forget(self) -> None:
        """Drops what is known, after a change in this process."""
        self._terms.clear()

    def _count(self, tenant_id: str, limits: Limits, rate: float) -> None:
        each = 1.0 / rate
        burst = limits.request_burst or max(1, math.ceil(rate))
        with acting_for(tenant_id), self._engine.connect() as connection:
            taken = take_request(connection, tenant_id, seconds_each=each, burst=burst)
        left = max(0, math.floor(burst - taken.seconds_to_full / each + 1e-6))
        shown = Rate(burst, left, taken.seconds_to_full)

        @after_this_request
        def say(response: Response) -> Response:
            response.headers.update(shown.headers)
            return response

        if not taken.is_granted:
            wait = max(0.0, taken.seconds_to_full - (burst - 1) * each)
            raise RateLimitExceeded(
                f"more than {rate:g} requests a second, after {burst} at once",
                retry_after_seconds=wait,
            )


def spelled(seconds: float) -> str:
    """As in ``6m0s``, ``1.5s`` or ``17ms``."""
    milliseconds = math.ceil(seconds * SECOND)
    if milliseconds < SECOND:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60 * SECOND)
    return f"{minutes}m{rest / SECOND:g}s" if minutes else f"{rest / SECOND:g}s"
