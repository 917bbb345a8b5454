"""Bare transformers in a process of its own, so that torch stays out of the benchmark's.

    python -m bench.bare_text MODEL_DIRECTORY

answers each line of JSON on standard input with one on standard output: ``{"dtype", "rows",
"new_tokens"}`` with tokens a second, ``{"agreement": rows}`` with the shares of rows that differ.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from typing import Any, TextIO

from bench.text_engine import Bare, agreement


def answer(model: str, asked: dict[str, Any]) -> Any:
    """What one line asks for."""
    if rows := asked.get("agreement"):
        return agreement(model, rows)
    bare = _bare(model, asked["dtype"])
    return bare.rate(asked["rows"], asked["new_tokens"])


@cache
def _bare(model: str, dtype: str) -> Bare:
    bare = Bare(model, dtype)
    bare.rate(8, 8)
    return bare


def main() -> None:
    replies = _own_stdout()
    for line in sys.stdin:
        print(json.dumps(answer(sys.argv[1], json.loads(line))), file=replies, flush=True)


def _own_stdout() -> TextIO:
    """Standard output for us alone: what libraries print there goes to standard error."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w")


if __name__ == "__main__":
    main()
