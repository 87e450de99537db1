"""Small files that FFmpeg would unpack into gigabytes: each is decoded or refused within a bound on memory."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="a process' highest memory is read from /proc"),
]

BOUND = 60  # MiB above what the imports take
MEASURE = """
import sys
from pathlib import Path
from pipeline import Permanent
from stages.audio.decode import decode

def highest():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))

audio = Path(sys.argv[1]).read_bytes()
before = highest()
try:
    said = f"{decode(audio, 900.0).size} samples"
except Permanent as error:
    said = str(error)
print(highest() - before, said)
"""


def note(codec: str, container: str, options: dict[str, str] | None = None) -> bytes:
    """A second of 16 kHz."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream: Any = output.add_stream(codec, rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ones((1, 16_000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 16_000, Fraction(1, 16_000)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def id3_unpacking_to(count: int, size: int) -> bytes:
    """A tag of `count` texts that are `size` bytes each once they are decompressed."""

    def synchsafe(number: int) -> bytes:
        return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))

    frames = b""
    for n in range(count):
        body = struct.pack(">I", size + 4) + zlib.compress(b"\0k%02d" % n + b"\0" + b"a" * (size - 1), 9)
        frames += b"TXXX" + synchsafe(len(body)) + b"\0\x09" + body
    return b"ID3\4\0\0" + synchsafe(len(frames)) + frames


def mp3_with_a_tag() -> bytes:
    return id3_unpacking_to(40, 8_000_000) + note("libmp3lame", "mp3", {"id3v2_version": "0"})


def adts_with_a_tag_inside() -> bytes:
    return note("aac", "adts") + id3_unpacking_to(40, 8_000_000) + note("aac", "adts")


def wav_with_a_tag() -> bytes:
    tag, wav = id3_unpacking_to(40, 8_000_000), note("pcm_s16le", "wav")
    tag += bytes(len(tag) % 2)
    return wav[:12] + b"id3 " + struct.pack("<I", len(tag)) + tag + wav[12:]


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def parts_of(mp4: bytes, kind: bytes) -> tuple[bytes, bytes, bytes]:
    """What is in front of a box, its content, and what follows."""
    start = mp4.index(kind) - 4
    (size,) = struct.unpack_from(">I", mp4, start)
    return mp4[:start], mp4[start + 8 : start + size], mp4[start + size :]


def mp4_with_a_compressed_header() -> bytes:
    front, moov, rest = parts_of(note("aac", "ipod"), b"moov")
    packer = zlib.compressobj(1)
    packed = packer.compress(box(b"moov", moov))
    for _ in range(400):
        packed += packer.compress(bytes(1_000_000))
    packed += packer.flush()
    size = struct.pack(">I", 400_000_000)
    return front + box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", size, packed))) + rest


def table(moov: bytes, samples: int) -> bytes:
    """The header with tables that say there are this many samples of one byte, all in one chunk."""
    changed = bytearray(moov)
    struct.pack_into(">II", changed, moov.index(b"stsz") + 8, 1, samples)
    struct.pack_into(">IIII", changed, moov.index(b"stsc") + 8, 1, 1, samples, 1)
    struct.pack_into(">III", changed, moov.index(b"stts") + 8, 1, samples, 1_024)
    return bytes(changed)


def mp4_of_many_samples() -> bytes:
    front, moov, rest = parts_of(note("aac", "ipod"), b"moov")
    return front + box(b"moov", table(moov, 40_000_000)) + rest


def mp4_of_many_tracks() -> bytes:
    front, moov, rest = parts_of(note("aac", "ipod"), b"moov")
    head, track, _ = parts_of(table(moov, 1_000_000), b"trak")
    return front + box(b"moov", head, *[box(b"trak", track)] * 100) + rest


def mp4_with_fragments_of_many_samples() -> bytes:
    mp4 = note("aac", "mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    changed = bytearray(mp4)
    struct.pack_into(">II", changed, mp4.index(b"trun") + 4, 1, 80_000_000)
    return bytes(changed)


def flac_of_many_tags() -> bytes:
    count = 1_000_000
    tags = struct.pack("<II", 0, count) + b"".join(struct.pack("<I8s", 8, b"%07x=" % n) for n in range(count))
    flac = note("flac", "flac")
    return flac[:42] + b"\4" + len(tags).to_bytes(3, "big") + tags + flac[42:]


@pytest.mark.parametrize(
    "bomb",
    [
        mp3_with_a_tag,
        adts_with_a_tag_inside,
        wav_with_a_tag,
        mp4_with_a_compressed_header,
        mp4_of_many_samples,
        mp4_of_many_tracks,
        mp4_with_fragments_of_many_samples,
        flac_of_many_tags,
    ],
)
def test_a_small_file_does_not_take_much_memory(bomb: Callable[[], bytes], tmp_path: Path) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(bomb())
    assert file.stat().st_size < 16_777_216
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, file], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    taken, said = done.stdout.split(" ", 1)
    assert int(taken) < BOUND, said
