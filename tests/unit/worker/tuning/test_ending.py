from __future__ import annotations

import pytest

from worker.tuning.ending import what_died

TAIL = """ther said "my secret prompt"
Traceback (most recent call last):
  File "/srv/pressrun/scratch/ab12/worker/recipes/run.py", line 47, in run
    tell(folder, plan, Reporter(folder, main=first))
  File "<frozen runpy>", line 88, in _run_code
KeyError: 'my secret prompt'

During handling of the above exception, another exception occurred:

safetensors.SafetensorError: my secret prompt in /srv/pressrun/scratch/ab12"""


def test_a_death_is_told_without_what_was_printed() -> None:
    frames, message = what_died("the training's process exited with 1", TAIL)
    assert message == "the training's process exited with 1 (safetensors.SafetensorError)"
    assert frames == ["run.py:47 run", "<frozen runpy>:88 _run_code"]


@pytest.mark.parametrize("tail", ["", "my secret prompt: an Error", "Errors are human"])
def test_without_an_error_only_the_exit_is_told(tail: str) -> None:
    assert what_died("it died", tail) == ([], "it died")
