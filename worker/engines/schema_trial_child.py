"""The process that compiles a stranger's schema before an engine does: what takes too much time or
memory ends here.

Run as ``python -m worker.engines.schema_trial_child``. The first line of its standard input is
``[tokenizer, ends]``, each further one a schema; it answers each of those with a line, null or why
the schema is no use. A schema that takes too much ends the process, and with it the answer.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time

from llguidance import LLTokenizer

from worker.engines.matchers import UnusableSchema, matcher_of, tokenizer_of
from worker.engines.schema_checks import AnswerCheck

CPU_SECONDS = 2
"""Of one schema, and up to one more: the system counts in whole seconds."""
MEMORY_BYTES = 384 * 2**20
"""Of addresses, on top of what the tokenizer takes."""
_PAGE_BYTES = resource.getpagesize()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines = iter(sys.stdin.buffer)
    tokenizer = tokenizer_of(*json.loads(next(lines)))
    _limit(resource.RLIMIT_AS, _addresses() + MEMORY_BYTES)
    for line in lines:
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + CPU_SECONDS)
        why = _problem(tokenizer, json.loads(line))
        sys.stdout.write(json.dumps(why) + "\n")
        sys.stdout.flush()


def _problem(tokenizer: LLTokenizer, schema: str) -> str | None:
    try:
        matcher_of(tokenizer, schema)
        AnswerCheck(json.loads(schema))
    except UnusableSchema as error:
        return error.why
    except MemoryError:
        return "compiling it takes too much memory"
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None


def _addresses() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * _PAGE_BYTES


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (soft, hard))


if __name__ == "__main__":
    main()
