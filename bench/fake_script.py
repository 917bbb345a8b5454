"""A batch of the fake engine as a single script: what the plant's machinery is measured against.

    python -m bench.fake_script INPUT OUTPUT JOB_ID

parses, answers and writes the lines that the plant would, and prints the seconds it took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from worker.engines.fake import fake_response
from worker.outputs import response_line
from worker.rows import RowInput, decode_line, model_of

OK = 200


def run(source: Path, target: Path, job_id: str) -> float:
    """Seconds from opening ``source`` to closing ``target``."""
    began = time.perf_counter()
    with source.open("rb") as lines, target.open("wb") as output:
        for number, text in enumerate(lines, start=1):
            line = decode_line(text)
            body = bytes(line.body)
            model = model_of(body)
            row = RowInput(number - 1, number, line.custom_id, line.url, model, body)
            answer = fake_response(line.url, body, model)
            output.write(response_line(job_id, row, OK, answer))
    return time.perf_counter() - began


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
