"""A video file as the encoders leave it: what is not of its pictures and sounds."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from worker.engines.encoding import VideoFile, VideoFormat

FRAME = np.full((90, 160, 3), 120, np.uint8)


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_no_thread_of_an_encoder_is_before_everybody_else(
    tmp_path: Path, container: VideoFormat
) -> None:
    before = len(os.listdir("/proc/self/task"))
    file = VideoFile(tmp_path / "video", container, size=(160, 90), fps=10, audio=True, threads=2)
    file.add_frame(FRAME)
    threads = [int(thread) for thread in os.listdir("/proc/self/task")]
    policies = {os.sched_getscheduler(thread) for thread in threads}
    file.finish()
    assert container == "webm" or len(threads) > before  # AV1's encoder has threads of its own
    assert policies == {os.SCHED_OTHER}


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_every_frame_comes_once_and_in_order(tmp_path: Path, container: VideoFormat) -> None:
    path = tmp_path / "video"
    file = VideoFile(path, container, size=(160, 90), fps=10, audio=True)
    for light in range(45):
        file.add_frame(np.full_like(FRAME, 4 * light))
        file.add_sound(np.zeros((4_800, 2), np.float32))
    file.finish()
    with av.open(str(path)) as opened:
        shown = [frame.to_ndarray(format="gray").mean() for frame in opened.decode(video=0)]
    assert len(shown) == 45
    assert shown == sorted(shown)


def test_a_file_without_a_frame_can_be_abandoned(tmp_path: Path) -> None:
    VideoFile(tmp_path / "video", "mp4", size=(160, 90), fps=10, audio=False).abandon()
