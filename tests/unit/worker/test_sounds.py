"""Sounds: bounds of decoding, formats, sample rates, loudness, peaks, pace, pictures."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

from shared.ids import artifact_id
from worker.engines.sounds import (
    MEDIA_TYPES,
    Envelope,
    LoudnessMeter,
    Resampler,
    SoundFormat,
    SoundLimits,
    SoundWriter,
    UnreadableSound,
    decode_sound,
    integrated_loudness,
    limit,
    resample,
    stretch,
    true_peak,
    write_sound,
    write_waveform,
)

Samples = NDArray[np.float32]
RATE = 24_000


def tone(
    seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0, peak: float = 0.5
) -> Samples:
    time = np.arange(round(seconds * rate)) / rate
    return (peak * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def noise(seconds: float = 1.0, level: float = 0.3) -> Samples:
    random = np.random.default_rng(3).standard_normal(round(seconds * RATE))
    return (level * random).astype(np.float32)


def encoded(
    samples: Samples, rate: int = RATE, kind: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def pitch(samples: Samples, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * rate / len(samples)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sound_format", list(MEDIA_TYPES))
def test_what_is_written_can_be_read_and_is_described(
    tmp_path: Path, sound_format: SoundFormat
) -> None:
    name = f"speech.{sound_format}"
    file = write_sound(tone(), RATE, tmp_path, row="job_1-0", name=name, sound_format=sound_format)
    content = Path(file.path).read_bytes()
    assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (file.id, file.name) == (artifact_id("job_1-0", name), name)
    assert (file.role, file.media_type, file.seconds) == ("audio", MEDIA_TYPES[sound_format], 1.0)
    if sound_format == "pcm":
        samples = np.frombuffer(content, "<i2").astype(np.float32) / 32768
        rate = RATE
    else:
        sound = decode_sound(Path(file.path))
        samples, rate = sound.mono, sound.rate
    assert len(samples) / rate == pytest.approx(1.0, abs=0.1)
    assert pitch(samples, rate) == pytest.approx(440, abs=2)
    middle = samples[len(samples) // 4 : -len(samples) // 4]  # codecs overshoot where it sets in
    assert float(np.abs(middle).max()) == pytest.approx(0.5, abs=0.05)


def test_opus_is_opus_in_ogg_at_48_khz(tmp_path: Path) -> None:
    file = write_sound(tone(), RATE, tmp_path, row="r", name="a.opus", sound_format="opus")
    content = Path(file.path).read_bytes()
    assert content[:4] == b"OggS"
    head = content.index(b"OpusHead")
    channels, _, input_rate = struct.unpack("<xBHI", content[head + 8 : head + 16])
    assert (channels, input_rate) == (1, 48_000)
    info = soundfile.info(file.path)
    assert (info.samplerate, info.subtype) == (48_000, "OPUS")


def test_mp3_takes_the_next_rate_it_knows_and_others_are_refused(tmp_path: Path) -> None:
    file = write_sound(tone(rate=20_000), 20_000, tmp_path, row="r", name="a", sound_format="mp3")
    assert decode_sound(Path(file.path)).rate == 22_050
    with pytest.raises(ValueError, match="20000"):
        SoundWriter(tmp_path / "b", "mp3", 20_000)


def test_stereo_stays_stereo(tmp_path: Path) -> None:
    both = np.stack([tone(), tone(hertz=880)], axis=1)
    file = write_sound(both, RATE, tmp_path, row="r", name="a.opus", sound_format="opus")
    sound = decode_sound(Path(file.path))
    assert [round(pitch(lane, sound.rate), -1) for lane in sound.samples.T] == [440, 880]


def test_over_full_scale_is_clipped_and_never_wraps(tmp_path: Path) -> None:
    for sound_format in ("wav", "pcm", "flac"):
        file = write_sound(
            tone(peak=3.0), RATE, tmp_path, row="r", name="a", sound_format=sound_format
        )
        content = Path(file.path).read_bytes()
        wave = np.frombuffer(content, "<i2") / 32768 if sound_format == "pcm" else None
        samples = decode_sound(Path(file.path)).mono if wave is None else wave
        assert float(np.abs(np.diff(samples)).max()) < 0.5


def test_every_accepted_format_is_decoded_from_bytes() -> None:
    for kind, subtype in (("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")):
        sound = decode_sound(encoded(tone(), kind=kind, subtype=subtype))
        assert sound.rate == RATE
        assert sound.seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("content", "limits", "message"),
    [
        (b"", SoundLimits(), "known format"),
        (b"hello, I am a text file", SoundLimits(), "known format"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", SoundLimits(), "known format"),
        (b"ID3" + b"\x00" * 200, SoundLimits(), "broken"),
        (b"OggS" + b"\xff" * 200, SoundLimits(), "broken"),
        (encoded(tone()), SoundLimits(bytes=1000), "limit is 1000"),
        (encoded(tone(2)), SoundLimits(seconds=1.5), "longer than 1.5 seconds"),
        (encoded(tone(2)), SoundLimits(samples=40_000), "more than 40000 samples"),
        (encoded(np.zeros((9, 3), np.float32)), SoundLimits(), "3 channels"),
        (encoded(tone(), 96_000), SoundLimits(rate=48_000), "96000 Hz"),
        (encoded(tone(), kind="AIFF"), SoundLimits(), "known format"),
        (encoded(tone()[:0]), SoundLimits(), "no samples"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(content: bytes, limits: SoundLimits, message: str) -> None:
    with pytest.raises(UnreadableSound, match=message):
        decode_sound(content, limits)


def test_a_flac_that_understates_its_length_is_still_cut_off() -> None:
    content = bytearray(encoded(np.zeros(RATE * 20, np.float32), kind="FLAC"))
    content[21] &= 0xF0  # total samples, 36 bits from here on: 0 means unknown
    content[22:26] = b"\x00\x00\x00\x00"
    with pytest.raises(UnreadableSound):
        decode_sound(bytes(content), SoundLimits(seconds=5))
    with pytest.raises(UnreadableSound):
        decode_sound(bytes(content), SoundLimits(samples=RATE * 5))


def test_values_that_are_no_numbers_do_not_get_in() -> None:
    samples = np.array([np.nan, np.inf, -np.inf, 0.25], np.float32)
    sound = decode_sound(encoded(samples, subtype="FLOAT"))
    assert sound.mono.tolist() == [0.0, 1.0, -1.0, 0.25]


# --- rates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target"),
    [(24_000, 48_000), (22_050, 48_000), (24_000, 44_100), (48_000, 16_000), (24_000, 23_999)],
)
def test_resampling_keeps_the_wave_and_streams_alike(source: int, target: int) -> None:
    count = 2 * source
    window = np.hanning(count).astype(np.float32)
    wave = tone(2.0, source, 1000.0) * window
    out = resample(wave, source, target)
    assert len(out) == -(-count * target // source)
    expected = tone(len(out) / target, target, 1000.0)[: len(out)]
    expected = expected * np.interp(np.arange(len(out)) / target, np.arange(count) / source, window)
    error = np.square(out - expected).sum() / np.square(expected).sum()
    assert 10 * np.log10(error) < -90
    stream = Resampler(source, target)
    pieces = [stream.feed(piece) for piece in np.array_split(wave, [1, 7, 5000, 5001, 30_000])]
    np.testing.assert_allclose(np.concatenate([*pieces, stream.flush()]), out, atol=1e-6)


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    assert float(np.abs(resample(tone(1, 48_000, 11_000.0), 48_000, 16_000)[200:-200]).max()) < 1e-4


# --- loudness and peaks -----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("level", [-3.01, -23.01])
def test_a_997_hz_tone_has_the_loudness_of_the_standard(rate: int, level: float) -> None:
    peak = 10 ** ((level + 3.01) / 20)
    measured = integrated_loudness(tone(5, rate, 997.0, peak), rate)
    assert measured == pytest.approx(level, abs=0.1)


def test_gates_leave_out_silence_and_what_is_much_quieter() -> None:
    loud, quiet = tone(4, hertz=997.0), tone(4, hertz=997.0, peak=0.005)
    alone = integrated_loudness(loud, RATE)
    mixed = integrated_loudness(np.concatenate([loud, np.zeros(4 * RATE, np.float32), quiet]), RATE)
    assert alone is not None
    assert mixed == pytest.approx(alone, abs=0.3)


def test_loudness_of_pieces_is_that_of_the_whole() -> None:
    sound = noise(7)
    meter = LoudnessMeter(RATE)
    for piece in np.array_split(sound, [5, 100, 30_000, 30_001, 150_000]):
        meter.feed(piece)
    assert meter.integrated() == pytest.approx(integrated_loudness(sound, RATE), abs=1e-3)


def test_silence_has_no_loudness_and_short_sounds_have_one() -> None:
    assert integrated_loudness(np.zeros(RATE, np.float32), RATE) is None
    assert integrated_loudness(np.zeros(0, np.float32), RATE) is None
    assert integrated_loudness(tone(0.2), RATE) == pytest.approx(-9.5, abs=1)


def test_the_limiter_holds_true_peaks_and_leaves_the_rest() -> None:
    sound = np.concatenate([tone(1, peak=0.3), noise(1, 0.6), tone(1, peak=0.3)])
    limited = limit(sound, RATE, 0.8)
    assert float(np.abs(limited).max()) <= 0.8 + 1e-6
    assert true_peak(limited, RATE) < 0.82
    np.testing.assert_array_equal(limited[: RATE - 500], sound[: RATE - 500])
    assert limit(tone(), RATE, 0.8) is not None
    np.testing.assert_array_equal(limit(tone(), RATE, 0.8), tone())


def test_true_peaks_lie_between_samples() -> None:
    wave = np.sin(np.arange(RATE) * np.pi / 2 + np.pi / 4).astype(np.float32)
    assert float(np.abs(wave).max()) == pytest.approx(0.7071, abs=1e-3)
    assert true_peak(wave[1000:3000], RATE) == pytest.approx(1.0, abs=0.15)


# --- pace -------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.9, 1.1, 2.0, 4.0])
def test_stretching_changes_the_length_and_not_the_pitch(speed: float) -> None:
    stretched = stretch(tone(3), RATE, speed)
    assert len(stretched) == round(3 * RATE / speed)
    assert pitch(stretched, RATE) == pytest.approx(440, rel=0.01)
    assert float(np.abs(np.diff(stretched)).max()) < 1.3 * float(np.abs(np.diff(tone(3))).max())


# --- pictures ---------------------------------------------------------------------------------


def test_the_envelope_of_pieces_is_that_of_the_whole() -> None:
    sound = noise(2)
    whole, pieces = Envelope(len(sound)), Envelope(len(sound))
    whole.feed(sound)
    for piece in np.array_split(sound, 17):
        pieces.feed(piece)
    np.testing.assert_array_equal(whole.peaks, pieces.peaks)
    assert float(whole.peaks.max()) == float(np.abs(sound).max())


def test_a_waveform_shows_where_it_is_loud(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(RATE, np.float32), tone(1), np.zeros(RATE, np.float32)])
    envelope = Envelope(len(sound))
    envelope.feed(sound)
    of = write_sound(sound, RATE, tmp_path, row="r", name="speech.wav", sound_format="wav")
    file = write_waveform(envelope, tmp_path, row="r", of=of)
    assert (file.name, file.role, file.parent) == ("speech.waveform.png", "waveform", of.id)
    with Image.open(file.path) as picture:
        assert picture.size == (file.width, file.height) == (1200, 240)
        ink = np.asarray(picture)[:, :, 3] > 128
    columns = ink.sum(axis=0)
    assert columns[100:300].max() < 10
    assert columns[500:700].mean() > 100


def test_sounds_shorter_than_the_picture_are_drawn(tmp_path: Path) -> None:
    envelope = Envelope(10)
    envelope.feed(tone()[:10])
    of = write_sound(tone()[:10], RATE, tmp_path, row="r", name="a.wav", sound_format="wav")
    assert write_waveform(envelope, tmp_path, row="r", of=of).bytes > 100
