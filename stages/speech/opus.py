"""Sound as WhatsApp takes a voice note: ogg/opus."""

import io

import av
import numpy as np
from av.audio.frame import AudioFrame

from stages.audio.decode import RATE, decode

BIT_RATE = 24_000  # bits per second


def voice_note(audio: bytes, duration_limit: float) -> bytes:
    """An audio file of any format as ogg/opus, mono, 16 kHz.

    Raises Permanent for what is no audio, or longer than `duration_limit` seconds.
    """
    samples = (decode(audio, duration_limit) * 32_767).astype(np.int16)
    frame = AudioFrame.from_ndarray(samples[np.newaxis], "s16", "mono")
    frame.sample_rate = RATE
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", RATE, layout="mono", options={"application": "voip"})
        stream.bit_rate = BIT_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
