"""Decoding: every format that can be made here comes out as 16 kHz mono; everything else is Permanent."""

import io
import tracemalloc
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Permanent
from stages.audio.decode import RATE, Samples, decode

pytestmark = pytest.mark.unit

LIMIT = 900.0
TONE = 440.0  # Hz


def can_encode(codec: str) -> bool:
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def tone(codec: str, container: str, seconds: float, *, rate: int = 48_000, layout: str = "stereo") -> bytes:
    """A sine of half the full level."""
    moments = np.arange(int(seconds * rate)) / rate
    wave_form = (np.sin(2 * np.pi * TONE * moments) * 16_383).astype(np.int16)
    channels = 2 if layout == "stereo" else 1
    frame = av.AudioFrame.from_ndarray(np.repeat(wave_form, channels)[None, :], format="s16", layout=layout)
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def film_without_sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))
    return file.getvalue()


def wav(frames: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(RATE)
        output.writeframes(frames)
    return file.getvalue()


def loudest_frequency(samples: Samples) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * RATE / len(samples)


@pytest.mark.parametrize(
    ("codec", "container", "rate", "layout"),
    [
        ("libopus", "ogg", 48_000, "mono"),
        ("libmp3lame", "mp3", 44_100, "stereo"),
        ("aac", "ipod", 44_100, "stereo"),
        ("aac", "adts", 22_050, "mono"),
        ("pcm_s16le", "wav", 8_000, "mono"),
        ("pcm_s16le", "wav", 16_000, "stereo"),
        ("flac", "flac", 48_000, "stereo"),
        ("libopus", "webm", 48_000, "stereo"),
        ("libopencore_amrnb", "amr", 8_000, "mono"),
    ],
)
def test_a_format_is_decoded_to_16_khz_mono(codec: str, container: str, rate: int, layout: str) -> None:
    if not can_encode(codec):
        pytest.skip(f"PyAV was built without the encoder {codec}")
    samples = decode(tone(codec, container, 1.5, rate=rate, layout=layout), LIMIT)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) / RATE == pytest.approx(1.5, abs=0.1)  # codecs add and drop a few frames
    assert loudest_frequency(samples) == pytest.approx(TONE, abs=2)
    assert 0.4 < np.abs(samples[RATE // 2 : RATE]).max() < 0.65


def test_samples_keep_their_values() -> None:
    values = np.array([0, 16_384, -32_768, 32_767], np.int16)
    assert decode(wav(values.tobytes()), LIMIT).tolist() == [0.0, 0.5, -1.0, 32_767 / 32_768]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (film_without_sound, "there is no audio stream in it"),
        (lambda: b"<!doctype html><html><body>Not found</body></html>" * 20, "no audio we can read"),
        (lambda: b'{"error": {"message": "expired"}}', "no audio we can read"),
        (lambda: b"", "no audio we can read"),
        (lambda: tone("aac", "ipod", 1)[:2_000], "no audio we can read"),
        (lambda: wav(b""), "its length is zero"),
        (
            lambda: wav(b"\1\0" * 100).replace(b"fmt \x10\0\0\0\1\0", b"fmt \x10\0\0\0\xff\xfe"),
            "Decoder not found",
        ),
    ],
)
def test_what_has_no_sound_is_permanent(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(Permanent, match=reason):
        decode(make(), LIMIT)


def test_a_truncated_note_gives_what_is_left_of_it() -> None:
    whole = tone("libopus", "ogg", 5)
    assert 0.5 < len(decode(whole[: len(whole) // 2], LIMIT)) / RATE < 4.5


def test_a_note_over_the_limit_is_refused() -> None:
    note = tone("libopus", "ogg", 3)
    with pytest.raises(Permanent, match=r"longer than 2\.5 s"):
        decode(note, 2.5)
    assert len(decode(note, 3.1)) > 2.9 * RATE


def test_a_small_file_that_unpacks_into_hours_is_left_at_the_limit() -> None:
    note = tone("flac", "flac", 300, rate=8_000, layout="mono")  # 9.6 MB as 16-bit samples
    tracemalloc.start()
    try:
        with pytest.raises(Permanent, match="longer than 1 s"):
            decode(note, 1)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_list_of_files_does_not_open_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would read the note beside us for whoever sends its name."""
    (tmp_path / "note.wav").write_bytes(wav(b"\1\0" * RATE))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Permanent, match="no audio we can read"):
        decode(b"ffconcat version 1.0\nfile note.wav\n", LIMIT)


def test_a_description_of_a_stream_is_not_waited_for() -> None:
    with pytest.raises(Permanent, match="Invalid argument"):
        decode(b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 0 RTP/AVP 0\n", LIMIT)


def samples_or_permanent(audio: bytes) -> None:
    try:
        samples = decode(audio, 10)
    except Permanent:
        return
    assert samples.dtype == np.float32
    assert 0 < samples.size <= 10 * RATE


@given(
    st.binary(max_size=2_000), st.sampled_from([b"", b"OggS\0\2", b"RIFF", b"ID3\4", b"fLaC\0", b"\0\0\0\x18ftyp"])
)
@settings(deadline=None)
def test_random_bytes_are_permanent_or_samples(noise: bytes, magic: bytes) -> None:
    samples_or_permanent(magic + noise)


NOTES = [
    tone(*made, 0.3) for made in (("libopus", "ogg"), ("aac", "ipod"), ("flac", "flac"), ("libmp3lame", "mp3"))
]


@given(
    st.sampled_from(NOTES),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=20),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_damaged_notes_are_permanent_or_samples(note: bytes, spots: list[tuple[float, int]], kept: float) -> None:
    damaged = bytearray(note)
    for place, value in spots:
        damaged[int(place * len(damaged))] = value
    samples_or_permanent(bytes(damaged[: int(kept * len(damaged))]))
