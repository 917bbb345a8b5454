"""What a model takes: room on disk, memory, time. Measured side by side, before and after."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker.recipes.measuring_labels import logits_of, tokenised
from worker.recipes.measuring_models import Asked
from worker.tuning.messages import Subject

ROUNDS = 3
NEW_TOKENS = 16
TOGETHER = 8
"""Rows of the larger of two microbatches of texts."""
CLASSIFIED = 32
"""Rows of a microbatch of a classifier."""
_PROMPT = "A short story about a river, a bridge and the people of a small town, number {}:"
_KIB = 1024
_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


@dataclass(slots=True)
class Memory:
    """Of a process, above what it had before; None where the system does not tell."""

    resident: int | None = None
    peak: int | None = None


@contextmanager
def watched() -> Iterator[Memory]:
    """What the block adds to the process's memory: at its end, and at its worst."""
    _let_go()
    base = _status("VmRSS")
    told = base is not None and _forget_peak()
    found = Memory()
    yield found
    if told and base is not None:
        peak, resident = _status("VmHWM"), _status("VmRSS")
        found.peak = None if peak is None else max(0, peak - base)
        found.resident = None if resident is None else max(0, resident - base)


def answer_once(asked: Asked, engine: str) -> None:
    """One short row, so that every weight was looked at: pages of files come when they are read."""
    if engine == "text":
        ids = asked.loaded.tokenizer(_PROMPT, return_tensors="pt")["input_ids"]
        asked(input_ids=ids.to(asked.loaded.device))
    else:
        _classify(asked, [_PROMPT])


def bytes_on_disk(subject: Subject) -> int:
    """Of the files that are read to serve it, its adapter's included."""
    folders = [_local(subject.source)] + ([Path(subject.adapter)] if subject.adapter else [])
    files = {path for folder in folders for kind in _MODEL_FILES for path in folder.glob(kind)}
    return sum(path.stat().st_size for path in files)


def _local(source: str) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    from transformers.utils.hub import cached_file

    return Path(str(cached_file(source, "config.json"))).parent


def speeds(
    before: Asked, after: Asked, engine: str, rows: list[dict[str, Any]], tick: Callable[[], object]
) -> dict[str, dict[str, float]]:
    """Medians of ``ROUNDS`` turns, one model after the other: tokens a second that are written,
    by one row alone and by ``TOGETHER`` rows at once; of a classifier, rows a second."""
    jobs = _jobs(engine, rows)
    taken: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": []} for name in jobs}
    for turn in range(ROUNDS + 1):
        for name, job in jobs.items():
            for which, asked in (("before", before), ("after", after)):
                tick()
                began = time.perf_counter()
                made = job(asked)
                if turn:  # the first one warms up
                    taken[name][which].append(made / (time.perf_counter() - began))
    return {
        name: {which: round(statistics.median(found), 3) for which, found in sides.items()}
        for name, sides in taken.items()
    }


def _jobs(engine: str, rows: list[dict[str, Any]]) -> dict[str, Callable[[Asked], int]]:
    if engine == "text":
        return {
            "tokens_per_second_alone": lambda asked: _write(asked, 1),
            "tokens_per_second_together": lambda asked: _write(asked, TOGETHER),
        }
    texts = [row.get("text") or " ".join(row.get("tokens", ())) for row in rows[:CLASSIFIED]]
    return {"rows_per_second": lambda asked: _classify(asked, texts)}


def _write(asked: Asked, rows: int) -> int:
    tokenizer: Any = asked.loaded.tokenizer
    prompts = [tokenizer(_PROMPT.format(number))["input_ids"] for number in range(rows)]
    width = min(map(len, prompts))
    ids = torch.tensor([prompt[:width] for prompt in prompts], device=asked.loaded.device)
    asked.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=int(tokenizer.pad_token_id or 0),
    )
    return rows * NEW_TOKENS


def _classify(asked: Asked, texts: list[str]) -> int:
    logits_of(asked, tokenised(asked, texts))
    return len(texts)


def _let_go() -> None:
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status(name: str) -> int | None:
    """Bytes, from what Linux says about this process."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * _KIB
    return None
