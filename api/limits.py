"""Numbers that several parts of the API have to agree on."""

from __future__ import annotations

REQUEST_THREADS = 24
"""Threads of one API process; each serves one request at a time."""
MAX_WAITING_REQUESTS = REQUEST_THREADS // 2
"""Long-polls at a time in one process; above it they answer at once, like plain polls."""
DATABASE_CONNECTIONS = 8
"""Of one API process, in autocommit. Requests hold one for a millisecond, so threads share few."""
TRANSACTION_CONNECTIONS = 4
"""Of one API process, for the few calls of several statements."""

MAX_CACHED_KEYS = 10_000
MAX_CACHED_MODELS = 10_000
MODEL_CACHE_SECONDS = 2.0

MAX_RETRY_AFTER_SECONDS = 120
"""Clients of the OpenAI kind give up retrying when told to wait longer."""

DEFAULT_PRIORITY = 5
"""Of a job that names none and of every batch; 0 runs first, 9 last."""
MAX_DEADLINE_SECONDS = 30 * 86_400
"""Longest life of an open job or batch."""
BATCH_FILE_SECONDS = 30 * 86_400
"""Life of an uploaded batch input that names no other."""
