"""Bare transformers in a process of its own, so that torch stays out of the benchmark's.

    python -m bench.bare_text MODEL_DIRECTORY

answers each line of JSON on standard input with one on standard output: ``{"dtype", "rows",
"new_tokens"}`` with tokens a second, ``{"agreement": rows}`` with the shares of rows that differ.
"""

from __future__ import annotations

import sys
from functools import cache, partial
from typing import Any

from bench.beside import serve
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


if __name__ == "__main__":
    serve(partial(answer, sys.argv[1]))
