"""Identifiers: a visible prefix, 48 bits of milliseconds, 80 random bits.

Time first, so that primary-key pages stay local and ``ORDER BY id`` is creation order for lists.
Nothing relies on the clock being right.
"""

from __future__ import annotations

import hashlib
import secrets
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
LENGTH = 26
_DIGITS = {letter: digit for digit, letter in enumerate(ALPHABET)}
_TIME_CHARACTERS = 10


def new_id(prefix: str) -> str:
    """``prefix`` and 26 characters, such as ``job_01k9…``. The prefix brings its separator."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return prefix + "".join(
        ALPHABET[(number >> shift) & 31] for shift in range(5 * (LENGTH - 1), -1, -5)
    )


def accepted_seconds(item_id: str) -> int | None:
    """When an id of ours was made, in Unix seconds.

    The answer to a submit can tell this without asking the database for its row's time, every
    later answer tells the same, and lists are in its order.
    """
    body = item_id[-LENGTH:]
    if len(item_id) <= LENGTH or not set(body) <= _DIGITS.keys() or body[0] > "7":
        return None
    number = 0
    for letter in body[:_TIME_CHARACTERS]:
        number = number * 32 + _DIGITS[letter]
    return number // 1000


def new_job_id() -> str:
    return new_id("job_")


def new_video_id() -> str:
    return new_id("video_")


def new_response_id() -> str:
    return new_id("resp_")


def new_campaign_id() -> str:
    return new_id("campaign_")


def new_tuning_id() -> str:
    return new_id("ftjob-")


def new_evaluation_id() -> str:
    return new_id("eval_")


def new_optimization_id() -> str:
    return new_id("optjob-")


def new_import_id() -> str:
    return new_id("import_")


def new_checkpoint_id() -> str:
    return new_id("ftckpt_")


def new_batch_id() -> str:
    return new_id("batch_")


def new_production_id() -> str:
    return new_id("prod_")


def new_file_id() -> str:
    return new_id("file-")


def new_upload_id() -> str:
    return new_id("upload_")


def new_part_id() -> str:
    return new_id("part_")


def new_join_id() -> str:
    return new_id("join_")


def new_alias_id() -> str:
    return new_id("alias_")


def new_tenant_id() -> str:
    return new_id("ten_")


def new_key_id() -> str:
    return new_id("key_")


def new_webhook_endpoint_id() -> str:
    return new_id("whe_")


def new_delivery_id() -> str:
    return new_id("whd_")


def new_webhook_event_id() -> str:
    return new_id("evt_")


def new_deletion_id() -> str:
    return new_id("deletion_")


def new_schedule_id() -> str:
    return new_id("sched_")


def new_run_id() -> str:
    return new_id("run_")


def new_monitor_id() -> str:
    return new_id("monitor_")


def new_notice_id() -> str:
    return new_id("notice_")


def new_window_id() -> str:
    return new_id("window_")


def new_session_id() -> str:
    return new_id("ses_")


def artifact_id(row: str, name: str) -> str:
    """The id of the file ``name`` of a row: the same on every attempt, so that a repeated one
    writes the same lines. ``row`` is its id within the plant (``worker.engines.protocol.Row.id``).
    """
    return derived_id("art_", row, name)


def derived_id(prefix: str, row: str, name: str) -> str:
    """The id of what is called ``name`` in ``row``, always the same."""
    digest = hashlib.blake2b(f"{row}\0{name}".encode(), digest_size=17).digest()
    number = int.from_bytes(digest)
    return prefix + "".join(ALPHABET[(number >> (5 * place)) & 31] for place in range(LENGTH))
