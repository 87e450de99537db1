"""Audio files to the samples Whisper hears."""

import ctypes
import io
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from pipeline import Permanent
from stages.audio.formats import sniff

if TYPE_CHECKING:
    from av.packet import Packet  # which is generic in its stubs only

RATE = 16_000  # samples per second

# FFmpeg's decoders for what the formats hold; all others, of films above all, stay shut.
CODECS = (
    "aac,alac,amrnb,amrwb,flac,mp3float,opus,vorbis,adpcm_ima_wav,adpcm_ms,gsm_ms,"
    "pcm_alaw,pcm_mulaw,pcm_u8,pcm_s16le,pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le"
)
RATES = range(4_000, 384_001)  # below, a few bytes become hours at our rate
CHANNELS = range(1, 9)
STREAMS = 16
# Bytes FFmpeg may take at once, anywhere in this process: a file of a few KB can announce tables of GBs, or have
# them unpacked. What it needs for sound is far below.
ALLOCATION = 33_554_432
ctypes.CDLL(av._core.__file__).av_max_alloc(ctypes.c_size_t(ALLOCATION))  # PyAV has no name for it

Samples = npt.NDArray[np.float32]


def decode(audio: bytes, duration_limit: float, stop: threading.Event | None = None) -> Samples:
    """Mono samples from -1 to 1 at 16 kHz.

    Of a damaged or truncated file, what can be decoded. Raises Permanent for what is no audio, has none in it, or
    is longer than `duration_limit` seconds; decoding stops there, so a small file that unpacks into hours stays
    small. Raises TimeoutError soon after `stop` is set.
    """
    try:
        samples = _samples(audio, int(duration_limit * RATE), stop or threading.Event())
    except (av.FFmpegError, ValueError) as error:
        raise Permanent(f"this is no audio we can read: {_said(error)}") from None
    if samples is None:
        raise Permanent(f"the audio is longer than {duration_limit:g} s")
    if samples.size == 0:
        raise Permanent("the audio has no sound in it: its length is zero")
    return samples


def _samples(audio: bytes, limit: int, stop: threading.Event) -> Samples | None:
    pieces = [np.empty(0, np.int16)]
    count = 0
    for frame in _resampled(_frames(audio, stop)):
        pieces.append(frame.to_ndarray()[0])
        count += frame.samples
        if count > limit:
            return None
    return np.concatenate(pieces).astype(np.float32) / np.float32(32_768)


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
    """Mono at our rate. A stream may change its rate or channels on the way, which a resampler cannot."""
    shape, resampler = None, _resampler()
    for frame in frames:
        if shape != (shape := (frame.sample_rate, frame.layout.name, frame.format.name)):
            yield from resampler.resample(None)
            resampler = _resampler()
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _resampler() -> AudioResampler:
    return AudioResampler(format="s16", layout="mono", rate=RATE)


def _frames(audio: bytes, stop: threading.Event) -> Iterator[AudioFrame]:
    demuxer, content = sniff(audio)
    if demuxer == "mov" and re.search(rb"stsd.{12}(enca|drms)", content, re.DOTALL):  # its sample description
        raise ValueError("it is encrypted")
    options = {"format_whitelist": demuxer, "codec_whitelist": CODECS, "max_streams": str(STREAMS)}
    with av.open(_Input(content, stop), "r", demuxer, options, metadata_errors="ignore") as container:
        if not container.streams.audio:
            raise ValueError("there is no audio stream in it")
        yield from _decoded(container, stop)


def _decoded(container: InputContainer, stop: threading.Event) -> Iterator[AudioFrame]:
    """The frames without what is damaged. Raises the first error if there is nothing but damage."""
    stream = container.streams.audio[0]
    _check_codec(stream)
    damage: list[av.FFmpegError] = []
    heard = False
    for packet in _packets(container, stream, damage):
        _go_on(stop)
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            damage.append(error)
            continue
        for frame in frames:
            _check_sound(frame.sample_rate, frame.layout.nb_channels)
            heard = True
            yield frame
    if damage and not heard:
        raise damage[0]


def _packets(
    container: InputContainer, stream: AudioStream, damage: list[av.FFmpegError]
) -> "Iterator[Packet[AudioStream]]":
    """Up to where the file is damaged beyond reading on."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        damage.append(error)


def _check_codec(stream: AudioStream) -> None:
    codec = stream.codec_context  # None where FFmpeg knows no decoder
    if codec is None or codec.name not in CODECS.split(","):
        raise ValueError(f"its codec ({codec.name if codec else 'unknown'}) is not one that is decoded here")
    _check_sound(codec.sample_rate, codec.channels)


def _check_sound(rate: int, channels: int) -> None:
    if rate not in RATES:
        raise ValueError(f"its sample rate is {rate} Hz, not one from {RATES[0]} to {RATES[-1]}")
    if channels not in CHANNELS:
        raise ValueError(f"it has {channels} channels, not 1 to {CHANNELS[-1]}")


class _Input(io.BytesIO):
    """A file in memory that ends reading when `stop` is set: opening a file can take long, too."""

    def __init__(self, content: bytes, stop: threading.Event) -> None:
        super().__init__(content)
        self._stop = stop

    def read(self, size: int | None = -1, /) -> bytes:
        _go_on(self._stop)
        return super().read(size)


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise TimeoutError("stopped while decoding")


def _said(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it would take more than {ALLOCATION:,} bytes of memory at once"
    return getattr(error, "strerror", None) or str(error)
