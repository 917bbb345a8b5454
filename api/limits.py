"""Numbers that several parts of the API have to agree on."""

from __future__ import annotations

DATABASE_CONNECTIONS = 8
"""Of one API process, in autocommit. Requests hold one for a millisecond, so threads share few."""
TRANSACTION_CONNECTIONS = 4
"""Of one API process, for the few calls of several statements."""

MAX_CACHED_KEYS = 10_000
MAX_CACHED_MODELS = 10_000
MODEL_CACHE_SECONDS = 2.0

MAX_RETRY_AFTER_SECONDS = 60
"""A poller that is told more learns of the end too late; older clients of the OpenAI kind wait no
longer anyway."""
MAX_PREFER_SECONDS = 60
"""That a caller may ask a submit to wait for its result."""
MAX_POLLED_JOBS = 500
"""That may be asked for together."""
MAX_VERSION = 2**53
"""Of a job, that a caller may name: JSON numbers are exact up to there."""
PACE_CACHE_SECONDS = 5.0
"""How long an API process goes by the same measurement of a pool."""

DEFAULT_PRIORITY = 5
"""Of a job that names none and of every batch; 0 runs first, 9 last."""
MAX_DEADLINE_SECONDS = 30 * 86_400
"""Longest life of an open job or batch."""
BATCH_FILE_SECONDS = 30 * 86_400
"""Life of an uploaded batch input that names no other."""
