"""Tiny real files for the fake engine, made of bytes alone: no Pillow, no torch, no codec."""

from __future__ import annotations

import io
import struct
import wave
import zlib

SAMPLE_RATE = 16_000
_MP3_RATE = 44_100
_MP3_FRAME_SAMPLES = 1_152
_MP3_FRAME = b"\xff\xfb\x10\xc4" + bytes(100)
"""MPEG-1 layer III, mono, 32 kbit/s, without a single coefficient: 26 ms of silence."""

Colour = tuple[int, int, int]


def png(width: int, height: int, colour: Colour) -> bytes:
    """A picture of one colour: a palette with one entry, one bit a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)
    rows = zlib.compress(bytes(1 + (width + 7) // 8) * height)
    parts = [(b"IHDR", header), (b"PLTE", bytes(colour)), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in parts)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def webp(width: int, height: int, colour: Colour) -> bytes:
    """A lossless picture of one colour: prefix codes of one symbol, so pixels take no bits."""
    red, green, blue = colour
    bits = [(width - 1, 14), (height - 1, 14), (0, 1), (0, 3)]
    bits += [(0, 1)] * 3  # no transform, no colour cache, no meta codes
    for symbol in (green, red, blue, 255, 0):  # the fourth is alpha, the last distances
        bits += [(1, 1), (0, 1), (1, 1), (symbol, 8)]
    number = place = 0
    for value, width_bits in bits:
        number |= value << place
        place += width_bits
    data = b"\x2f" + number.to_bytes((place + 7) // 8, "little")
    padded = data + bytes(len(data) % 2)
    chunk = b"VP8L" + struct.pack("<I", len(data)) + padded
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def pcm(seconds: float) -> bytes:
    """A quiet square wave of 100 Hz: 16 bits, mono, ``SAMPLE_RATE``."""
    half = SAMPLE_RATE // 200
    period = struct.pack("<h", 800) * half + struct.pack("<h", -800) * half
    wanted = 2 * round(seconds * SAMPLE_RATE)
    return (period * (wanted // len(period) + 1))[:wanted]


def wav(seconds: float) -> bytes:
    """``pcm`` in a RIFF file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm(seconds))
    return buffer.getvalue()


def mp3(seconds: float) -> bytes:
    """Silence."""
    return _MP3_FRAME * max(1, round(seconds * _MP3_RATE / _MP3_FRAME_SAMPLES))


def mp4() -> bytes:
    """A file that calls itself MP4 and holds no frame."""
    brand = b"ftypisom" + struct.pack(">I", 0x200) + b"isommp41"
    return struct.pack(">I", 4 + len(brand)) + brand + struct.pack(">I", 8) + b"free"


def webm() -> bytes:
    """A file that calls itself WebM and holds no frame."""
    doc_type = b"\x42\x82\x84webm"
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(doc_type)]) + doc_type
