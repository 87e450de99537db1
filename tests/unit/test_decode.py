"""Decoding: every format comes out as 16 kHz mono; everything else is Permanent, and says what it looks like."""

import io
import struct
import threading
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
from stages.audio import decode as decoding
from stages.audio.decode import RATE, Samples, decode

pytestmark = pytest.mark.unit

LIMIT = 900.0
TONE = 440.0  # Hz


def tone(
    codec: str,
    container: str,
    seconds: float,
    *,
    rate: int = 48_000,
    layout: str = "stereo",
    options: dict[str, str] | None = None,
) -> bytes:
    """A sine of half the full level."""
    moments = np.arange(int(seconds * rate)) / rate
    wave_form = (np.sin(2 * np.pi * TONE * moments) * 16_383).astype(np.int16)
    channels = 2 if layout == "stereo" else 1
    frame = av.AudioFrame.from_ndarray(np.repeat(wave_form, channels)[None, :], format="s16", layout=layout)
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        if codec == "vorbis":  # FFmpeg's own is experimental, and stereo only
            stream.codec_context.options = {"strict": "experimental"}
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def film(*, sound: bool) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        heard: Any = output.add_stream("aac", rate=RATE, layout="mono") if sound else None
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))
        if heard:
            frame = av.AudioFrame.from_ndarray(np.ones((1, RATE), np.int16), format="s16", layout="mono")
            frame.sample_rate = RATE
            output.mux(heard.encode(frame))
            output.mux(heard.encode(None))
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
        ("libopencore_amrnb", "3gp", 8_000, "mono"),
        ("libmp3lame", "mp3", 8_000, "mono"),
        ("vorbis", "ogg", 44_100, "stereo"),
        ("alac", "ipod", 44_100, "stereo"),
        ("pcm_alaw", "wav", 8_000, "mono"),
        ("pcm_mulaw", "wav", 8_000, "mono"),
        ("pcm_f32le", "wav", 384_000, "mono"),
        ("adpcm_ms", "wav", 8_000, "mono"),
    ],
)
def test_a_format_is_decoded_to_16_khz_mono(codec: str, container: str, rate: int, layout: str) -> None:
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
        (lambda: film(sound=False), "there is no audio stream in it"),
        (lambda: b"<!doctype html><html><body>Not found</body></html>" * 20, "no audio we can read"),
        (lambda: b'{"error": {"message": "expired"}}', "no audio we can read"),
        (lambda: b"", "no audio we can read"),
        (lambda: tone("aac", "ipod", 1)[:2_000], "no audio we can read"),
        (lambda: wav(b""), "its length is zero"),
        (
            lambda: wav(b"\1\0" * 100).replace(b"fmt \x10\0\0\0\1\0", b"fmt \x10\0\0\0\xff\xfe"),
            r"its codec \(unknown\) is not one that is decoded here",
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
    with pytest.raises(Permanent, match="it looks like the description of a stream"):
        decode(b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 0 RTP/AVP 0\n", LIMIT)


def test_amr_wb_is_decoded() -> None:
    """Built by hand, as PyAV has no encoder: 50 frames of 20 ms at 6.6 kbit/s, of 132 bits each (RFC 4867)."""
    frames = [b"\x04" + bytes((7 * n + k) % 256 for k in range(17)) for n in range(50)]
    assert len(decode(b"#!AMR-WB\n" + b"".join(frames), LIMIT)) == RATE


ID3 = b"ID3\4\0\0\0\0\0\x11TIT2\0\0\0\x07\0\0\3Pedido"


@pytest.mark.parametrize(
    ("codec", "container"), [("libmp3lame", "mp3"), ("aac", "adts"), ("flac", "flac"), ("pcm_s16le", "wav")]
)
def test_tags_in_front_are_passed_over(codec: str, container: str) -> None:
    note = tone(codec, container, 1.5)
    assert decode(ID3 + ID3 + bytes(10) + note, LIMIT).size == decode(note, LIMIT).size


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        (b"", "there is nothing in it"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "it looks like HTML"),
        (b"<HTML><body>", "it looks like HTML"),
        (b'<?xml version="1.0"?><Error>', "it looks like XML"),
        (b'{"error": {"message": "expired"}}', "it looks like JSON"),
        (b"[]", "it looks like JSON"),
        (b"PK\3\4\x14\0", "it looks like a ZIP archive"),
        (b"\x1f\x8b\x08\0", "it looks like a compressed archive"),
        (b"%PDF-1.7", "it looks like a PDF"),
        (b"\x7fELF\2\1", "it looks like an executable"),
        (b"MZ\x90\0", "it looks like an executable"),
        (b"#!/bin/sh\n", "it looks like an executable"),
        (b"#EXTM3U\n#EXTINF:1\nhttp://127.0.0.1/", "it looks like a playlist"),
        (b"ffconcat version 1.0\nfile note.wav\n", "it looks like a playlist"),
        (b"\xff\xd8\xff\xe0JFIF", "it looks like a picture"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "it looks like a picture"),
        (b"RIFF\0\0\0\0AVI LIST", "it begins with the bytes 52 49 46 46 00 00 00 00"),
        (b"MThd\0\0\0\6", "it looks like MIDI"),
        (b"the requested file is gone", "it looks like text"),
        (b"\0\1\2", "it begins with the bytes 00 01 02"),
        (ID3, "there is nothing in it"),
        (ID3 + b"<html>", "it looks like HTML"),
    ],
)
def test_what_is_no_audio_is_said_to_be_what_it_looks_like(content: bytes, looks_like: str) -> None:
    with pytest.raises(Permanent, match=f"this is no audio we can read: {looks_like}"):
        decode(content, LIMIT)


@pytest.mark.parametrize("container", ["ac3", "aiff", "au", "caf", "avi", "asf", "mpegts", "w64", "nut"])
def test_formats_of_others_are_refused(container: str) -> None:
    codec = {"ac3": "ac3", "aiff": "pcm_s16be", "au": "pcm_s16be", "mpegts": "mp2"}.get(container, "pcm_s16le")
    with pytest.raises(Permanent, match="this is no audio we can read: it"):
        decode(tone(codec, container, 0.5), LIMIT)


def test_a_codec_of_films_is_refused() -> None:
    with pytest.raises(Permanent, match=r"its codec \(ac3\) is not one that is decoded here"):
        decode(tone("ac3", "mp4", 0.5), LIMIT)


def test_of_a_film_only_the_sound_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would decode pictures as soon as it opens the file, to see what they are."""
    pictures = []

    def decoded(container: Any, stop: threading.Event) -> Any:
        pictures.append(container.streams.video[0].codec_context.pix_fmt)
        return real(container, stop)

    real = decoding._decoded
    monkeypatch.setattr(decoding, "_decoded", decoded)
    assert decode(film(sound=True), LIMIT).size > 0.9 * RATE
    assert pictures == [None]


def test_an_encrypted_note_is_refused() -> None:
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    with pytest.raises(Permanent, match="it is encrypted"):
        decode(tone("aac", "mp4", 1, options=options), LIMIT)


@pytest.mark.parametrize("rate", [1, 3_999, 384_001, 4_294_967_295])
def test_a_sample_rate_that_nobody_uses_is_refused(rate: int) -> None:
    with pytest.raises(Permanent, match=r"its sample rate is -?\d+ Hz, not one from 4000 to 384000|Invalid"):
        decode(with_header(wav(b"\1\0" * RATE), 24, "<I", rate), LIMIT)


def test_a_flac_of_one_sample_a_second_is_refused() -> None:
    """One frame of 4,608 samples would be 74 million at our rate."""
    note = tone("flac", "flac", 4_608, rate=1, layout="mono")
    with pytest.raises(Permanent, match="its sample rate is 1 Hz"):
        decode(note, LIMIT)


@pytest.mark.parametrize("channels", [9, 255])
def test_more_channels_than_anybody_speaks_into_are_refused(channels: int) -> None:
    note = with_header(wav(b"\1\0" * RATE), 22, "<H", channels)
    with pytest.raises(Permanent, match=f"it has {channels} channels, not 1 to 8"):
        decode(with_header(note, 32, "<H", 2 * channels), LIMIT)


def with_header(file: bytes, place: int, form: str, value: int) -> bytes:
    changed = bytearray(file)
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


@pytest.mark.parametrize(
    ("codec", "container"),
    [("flac", "flac"), ("libmp3lame", "mp3"), ("aac", "adts"), ("aac", "ipod"), ("libopus", "ogg")],
)
def test_of_a_damaged_note_the_rest_is_kept(codec: str, container: str) -> None:
    note = bytearray(tone(codec, container, 5, rate=48_000, layout="mono"))
    middle = len(note) // 2
    note[middle : middle + 2_000] = b"\xa5" * 2_000
    assert decode(bytes(note), LIMIT).size > 2.4 * RATE


def test_a_note_that_is_all_damage_is_refused() -> None:
    note = bytearray(tone("aac", "ipod", 2))
    start, end = note.index(b"mdat") + 4, note.index(b"moov") - 4
    note[start:end] = b"\xff" * (end - start)
    with pytest.raises(Permanent, match="no audio we can read"):
        decode(bytes(note), LIMIT)


def test_a_rate_that_changes_on_the_way_is_followed() -> None:
    changing = tone("aac", "adts", 1, rate=22_050, layout="mono") + tone("aac", "adts", 1, rate=44_100)
    samples = decode(changing, LIMIT)
    assert len(samples) / RATE == pytest.approx(2, abs=0.2)
    assert loudest_frequency(samples[RATE // 4 : 3 * RATE // 4]) == pytest.approx(TONE, abs=3)
    assert loudest_frequency(samples[5 * RATE // 4 : 7 * RATE // 4]) == pytest.approx(TONE, abs=3)


def test_decoding_can_be_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(TimeoutError, match="stopped while decoding"):
        decode(tone("libopus", "ogg", 1), LIMIT, stop)


def test_decoding_can_be_stopped_between_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    frames = []

    def resampled(given: Any) -> Any:
        for frame in given:
            stop.set()
            frames.append(frame)
            yield frame

    monkeypatch.setattr(decoding, "_resampled", resampled)
    with pytest.raises(TimeoutError):
        decode(wav(b"\1\0" * 10 * RATE), LIMIT, stop)
    assert len(frames) == 1


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
    tone(codec, container, 0.3, rate=8_000 if container == "amr" else 48_000, layout="mono")
    for codec, container in (
        ("libopus", "ogg"),
        ("libopus", "webm"),
        ("aac", "ipod"),
        ("aac", "adts"),
        ("flac", "flac"),
        ("libmp3lame", "mp3"),
        ("pcm_s16le", "wav"),
        ("libopencore_amrnb", "amr"),
    )
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
