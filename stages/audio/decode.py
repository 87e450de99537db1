"""Audio files of any format to the samples Whisper hears."""

import io
import itertools

import av
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler

from pipeline import Permanent

RATE = 16_000  # samples per second

# Formats that hold sound themselves. FFmpeg knows others that only name files or addresses to read it from,
# or describe a stream to wait for; those would have a customer decide what this machine opens.
FORMATS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav"

Samples = npt.NDArray[np.float32]


def decode(audio: bytes, duration_limit: float) -> Samples:
    """Mono samples from -1 to 1 at 16 kHz.

    Raises Permanent for what is no audio, has none in it, or is longer than `duration_limit` seconds;
    decoding stops there, so a small file that unpacks into hours stays small.
    """
    try:
        samples = _samples(audio, int(duration_limit * RATE))
    except (av.FFmpegError, ValueError) as error:
        raise Permanent(f"this is no audio we can read: {_said(error)}") from None
    if samples is None:
        raise Permanent(f"the audio is longer than {duration_limit:g} s")
    if samples.size == 0:
        raise Permanent("the audio has no sound in it: its length is zero")
    return samples


def _samples(audio: bytes, limit: int) -> Samples | None:
    resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
    pieces: list[npt.NDArray[np.int16]] = []
    count = 0
    with av.open(
        io.BytesIO(audio), "r", options={"format_whitelist": FORMATS}, metadata_errors="ignore"
    ) as container:
        if not container.streams.audio:
            raise ValueError("there is no audio stream in it")
        for frame in itertools.chain(container.decode(audio=0), [None]):  # None flushes the resampler
            for piece in resampler.resample(frame):
                pieces.append(piece.to_ndarray()[0])
                count += piece.samples
            if count > limit:
                return None
    whole = np.concatenate(pieces or [np.empty(0, np.int16)])
    return whole.astype(np.float32) / np.float32(32_768)


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
