"""What a webhook is called and what it says: one table from a job's kind and end to its type."""

from __future__ import annotations

import json
import re

from shared.db.jobs import KIND_PREFIXES
from shared.states import JobState, is_terminal

STEMS: dict[str, tuple[str, str]] = {
    "generate": ("job", "succeeded"),
    "batch": ("batch", "completed"),
    "video": ("video", "completed"),
    "campaign": ("campaign", "completed"),
    "fine_tune": ("fine_tuning.job", "succeeded"),
    "response": ("response", "completed"),
}
"""By the kind of job: what its types begin with, and the word for a good end. OpenAI's words where
OpenAI has any; a kind that is not listed is called by its name, and ends ``completed``."""

CUT = {"response": "response.incomplete"}
"""By the kind of job: the type of a good end whose answer was cut."""

THRESHOLD_REACHED = "budget.threshold_reached"
OTHERS = ("schedule.paused", "monitor.alert", "monitor.paused", THRESHOLD_REACHED)
"""What is told though no job has ended."""

ENDING = r"^[a-z_]+\.(succeeded|completed|failed|cancelled|expired)$"
"""Types of ``events`` that tell the end of a job: Python and Postgres read this alike."""
UNANNOUNCED = f"NOT announced AND type ~ '{ENDING}'"
"""The condition of ``ix_events_unannounced``: ends whose webhooks are still to be made."""


def event_type(kind: str, state: str, *, cut: bool = False) -> str:
    """The type of the webhook that tells a job of ``kind`` has ended as ``state``; ``cut``: with an
    answer that ends early, at a limit."""
    if cut and state == JobState.SUCCEEDED and kind in CUT:
        return CUT[kind]
    stem, good = STEMS.get(kind, (kind, "completed"))
    return f"{stem}.{good if state == JobState.SUCCEEDED else state}"


def types_of(kind: str) -> tuple[str, ...]:
    """Every way in which a job of ``kind`` can end."""
    ends = tuple(event_type(kind, state) for state in JobState if is_terminal(state))
    return (*ends, CUT[kind]) if kind in CUT else ends


def event_types() -> tuple[str, ...]:
    """All types that there are here."""
    of_jobs = dict.fromkeys(name for kind in KIND_PREFIXES for name in types_of(kind))
    return (*of_jobs, *OTHERS)


def end_told(kind: str, told: str) -> str | None:
    """The state that an event of the job's own, such as ``batch.completed``, tells as its end;
    None for an event that is about something else."""
    subject, _, word = told.partition(".")
    if subject not in {"job", kind} or not re.fullmatch(ENDING, told):
        return None
    return str(JobState.SUCCEEDED) if word == "completed" else word


def payload(*, event_id: str, kind: str, created_at: int, about: str) -> bytes:
    """The body of a webhook: thin, so that whoever reads it fetches what is true by then.
    ``kind`` is its type, ``about`` the id of what it tells of."""
    body = {
        "id": event_id,
        "object": "event",
        "created_at": created_at,
        "type": kind,
        "data": {"id": about},
    }
    return json.dumps(body, separators=(",", ":")).encode()
