"""A video file written frame by frame: MP4 (AV1 and AAC) or WebM (VP9 and Opus).

Every encoder named here is free of the GPL and of royalties for what it makes; x264 and x265,
which some builds of FFmpeg carry, are never asked for. Needs PyAV, the extra ``video``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from shared.errors import InvalidRequest
from worker.engines.base import EngineFailed

SAMPLE_RATE = 48_000
"""Of every sound in a video, in Hz: what Opus and AAC both take."""
CHANNELS = 2
LEAST_SIDE, MOST_HEIGHT = 32, 8_704
"""Pixels of a frame. SVT-AV1 opens no higher one, and never comes back from one that is narrower
where its other side is over 64."""

VideoFormat = Literal["mp4", "webm"]
MEDIA_TYPES: dict[str, str] = {"mp4": "video/mp4", "webm": "video/webm"}
VIDEO_CODECS: dict[str, tuple[str, ...]] = {
    "mp4": ("libsvtav1", "libaom-av1", "libvpx-vp9"),
    "webm": ("libvpx-vp9", "libsvtav1"),
}
"""Encoders by container, the first that this build of FFmpeg has."""
AUDIO_CODECS = {"mp4": "aac", "webm": "libopus"}

_OPTIONS = {
    "libsvtav1": {"preset": "7", "crf": "30"},
    "libaom-av1": {"cpu-used": "8", "crf": "30", "b": "0", "row-mt": "1"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "5", "crf": "31", "b": "0", "row-mt": "1"},
}
_PIXELS = {"libsvtav1": "yuv420p10le", "libaom-av1": "yuv420p10le", "libvpx-vp9": "yuv420p"}
"""AV1 in 10 bits keeps dark gradients smooth; every AV1 decoder reads it. VP9's would not be."""
_KEYFRAME_SECONDS = 4
"""How far apart the places are that a player can jump to."""
_CONTAINER_OPTIONS = {
    "mp4": {"fflags": "+bitexact", "movflags": "+faststart"},
    "webm": {"fflags": "+bitexact"},
}
"""``bitexact`` leaves random ids and versions out; ``faststart`` lets a player begin at once."""


def check_sides(size: tuple[int, int]) -> None:
    """Raises InvalidRequest for a frame, (width, height), that not every encoder here takes."""
    if min(size) < LEAST_SIDE:
        raise InvalidRequest(f"size: {LEAST_SIDE} pixels a side are the least", param="size")
    if size[1] > MOST_HEIGHT:
        raise InvalidRequest(f"size: a frame is at most {MOST_HEIGHT} pixels high", param="size")


def video_codec(container: str) -> str:
    """The encoder for ``container``. Raises EngineFailed ``codec_missing``."""
    for name in VIDEO_CODECS[container]:
        if name in av.codecs_available:
            return name
    wanted = ", ".join(VIDEO_CODECS[container])
    raise EngineFailed("codec_missing", f"this build of FFmpeg has none of {wanted}")


class VideoFile:
    """One file being written.

    Frames come in order, each (height, width, 3) in RGB of 8 bits; sounds come in order too, each
    (samples, 2) of float32 within -1..1 at ``SAMPLE_RATE``. Keep both about equally far: what is
    ahead waits in memory. The same frames and sounds make the same bytes.
    """

    def __init__(
        self,
        path: Path,
        container: VideoFormat,
        *,
        size: tuple[int, int],
        fps: int,
        audio: bool,
        threads: int = 0,
    ) -> None:
        """``size`` is (width, height), both even. ``threads`` 0 leaves it to the encoder."""
        os.environ.setdefault("SVT_LOG", "0")  # it would describe itself each time
        self._frame_n = self._sample_n = 0
        self._size = size
        self.codec = video_codec(container)
        options = _CONTAINER_OPTIONS[container]
        self._file = av.open(str(path), "w", format=container, container_options=options)
        self._video = self._add_video(fps, threads)
        self._audio = self._add_audio(AUDIO_CODECS[container]) if audio else None
        self._file.start_encoding()
        _make_threads_ordinary()

    def _add_video(self, fps: int, threads: int) -> VideoStream:
        stream = cast(VideoStream, self._file.add_stream(self.codec, rate=fps))
        stream.width, stream.height = self._size
        stream.pix_fmt = _PIXELS[self.codec]
        stream.options = dict(_OPTIONS[self.codec])
        context = stream.codec_context
        context.gop_size = fps * _KEYFRAME_SECONDS
        context.time_base = Fraction(1, fps)
        context.thread_count = threads
        context.colorspace = int(Colorspace.ITU709)
        context.color_range = int(ColorRange.MPEG)
        context.color_primaries = int(ColorPrimaries.BT709)
        context.color_trc = int(ColorTrc.BT709)
        return stream

    def _add_audio(self, codec: str) -> AudioStream:
        stream = cast(AudioStream, self._file.add_stream(codec, rate=SAMPLE_RATE, layout="stereo"))
        stream.bit_rate = 128_000
        return stream

    @property
    def frame_n(self) -> int:
        """Frames written so far."""
        return self._frame_n

    def add_frame(self, pixels: NDArray[np.uint8]) -> None:
        """Encodes the next frame."""
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format=_PIXELS[self.codec],
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
        frame.pts, frame.time_base = self._frame_n, self._video.codec_context.time_base
        self._frame_n += 1
        self._mux(self._video.encode(frame))

    def add_sound(self, samples: NDArray[np.float32]) -> None:
        """Encodes the next stretch of sound. Only for a file that was opened with ``audio``."""
        assert self._audio is not None  # noqa: S101 - the caller opened the file
        if not len(samples):
            return
        planes = np.ascontiguousarray(samples.T, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        frame.pts = self._sample_n
        self._sample_n += len(samples)
        self._mux(self._audio.encode(frame))

    def finish(self) -> None:
        """Writes what the encoders still hold, and the file's index. Then it is complete."""
        self._mux(self._video.encode(None))
        if self._audio is not None:
            self._mux(self._audio.encode(None))
        self._file.close()

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        for packet in packets:
            if not packet.size:  # an encoder may mark its end by an empty one, which muxers refuse
                continue
            stamps = f"{packet.stream.type} packet of {packet.pts} (from {packet.dts})"
            try:
                self._file.mux(packet)
            except av.ArgumentError as error:
                message = f"FFmpeg refused a {stamps}: {error.strerror}"
                raise EngineFailed("encoding_failed", message) from error

    def abandon(self) -> None:
        """Lets go of the encoders; a file that wasn't finished stays incomplete."""
        self._file.close()


def _make_threads_ordinary() -> None:
    """Takes real-time priority from the threads of an encoder that has just been opened.

    SVT-AV1 gives it to all of its threads wherever it may, so under root: everything else on the
    machine, heartbeats included, would stand still while a video is encoded.
    """
    if not hasattr(os, "sched_setscheduler"):  # elsewhere than on Linux it doesn't
        return
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            if os.sched_getscheduler(thread) in {os.SCHED_FIFO, os.SCHED_RR}:
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
