"""How often an engine child speaks of a row."""

from __future__ import annotations

from worker.engines.protocol import OutputFile, RowProgress, RowResult
from worker.engines.throttle import PAUSE_SECONDS, Throttle

PREVIEW = OutputFile("art_1", "p.webp", "/s/p", "preview", "image/webp", 1, "0" * 64)


def at(step: int, index: int = 0, preview: OutputFile | None = None) -> RowProgress:
    return RowProgress(1, 1, index, step, 10, preview=preview)


def test_the_first_word_goes_at_once_and_the_next_ones_wait() -> None:
    throttle = Throttle()
    assert throttle.pass_on([at(1)], 0.0) == [at(1)]
    assert throttle.pass_on([at(2)], 0.1) == []
    assert throttle.pass_on([at(1, index=1)], 0.1) == [at(1, index=1)]
    assert throttle.pass_on([at(3)], 0.2) == []
    # Nothing new, and yet the last word is not lost.
    assert throttle.pass_on([], PAUSE_SECONDS) == [at(3)]
    assert throttle.pass_on([], 9.0) == []


def test_previews_never_wait() -> None:
    throttle = Throttle()
    throttle.pass_on([at(1)], 0.0)
    throttle.pass_on([at(2)], 0.01)
    assert throttle.pass_on([at(3, preview=PREVIEW)], 0.02) == [at(3, preview=PREVIEW)]
    assert throttle.pass_on([], 0.2) == []  # step 2 is old news
    assert throttle.pass_on([at(4, preview=PREVIEW)], 0.21) == [at(4, preview=PREVIEW)]


def test_rows_that_have_ended_are_forgotten() -> None:
    throttle = Throttle()
    throttle.pass_on([at(1), at(1, index=1)], 0.0)
    throttle.pass_on([at(2), at(2, index=1)], 0.1)
    throttle.forget([RowResult(1, 1, 0, 200, b"{}")])
    assert throttle.pass_on([], 5.0) == [at(2, index=1)]
    throttle.pass_on([at(3, index=1)], 5.1)
    throttle.forget_shard(1, 1)
    assert throttle.pass_on([], 9.0) == []
