"""What a file is by its first bytes, whatever its name or its sender say."""

import re

from pipeline import Permanent

# FFmpeg's name of the demuxer for what begins like this. It is told which one, so it probes none of its hundreds,
# some of which read other files and addresses that the content names.
SIGNATURES = {
    "ogg": rb"OggS",
    "flac": rb"fLaC",
    "wav": rb"(RIFF|RF64)....WAVE",
    "amr": rb"#!AMR(-WB)?\n",
    "matroska": rb"\x1a\x45\xdf\xa3",  # WebM
    "mov": rb"....ftyp",  # M4A, MP4, 3GP
    "aac": rb"\xff[\xf0\xf1\xf8\xf9]",  # ADTS: 12 bits of sync, layer 0
    "mp3": rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x00-\xef]",  # 11 bits of sync, layer 3, a bit rate
}
OTHERS = {
    "HTML": rb"(?i)\s*(<!doctype html|<html|<head|<body|<!--)",
    "XML": rb"\s*<[?!a-zA-Z]",
    "JSON": rb"\s*[{\[]\s*[\"{\[\]}\d]",
    "a ZIP archive": rb"PK\x03\x04|PK\x05\x06",
    "a compressed archive": rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd",
    "a PDF": rb"%PDF",
    "an executable": rb"\x7fELF|MZ|\xca\xfe\xba\xbe|[\xce\xcf]\xfa\xed\xfe|#!",
    "a playlist": rb"#EXT|ffconcat|\[playlist\]",
    "the description of a stream": rb"v=0\r?\n",
    "a picture": rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|BM|II\*\x00|MM\x00\*",
    "MIDI, which has notes but no sound": rb"MThd",
    "text": rb"[\t\n\r\x20-\x7e]{16}",
}
# Version, flags, and a size of four times seven bits; taggers leave zeros around it.
ID3 = re.compile(rb"\x00*+ID3[\x00-\xfe]{2}(.)([\x00-\x7f]{4})", re.DOTALL)


def sniff(audio: bytes) -> tuple[str, bytes]:
    """FFmpeg's demuxer for a file, and its bytes without the ID3 tags.

    Raises Permanent, saying what it looks like, for what is none of the formats we read.
    """
    content = _without_tags(audio)
    for name, signature in SIGNATURES.items():
        if re.match(signature, content, re.DOTALL):
            return name, _without_inner_tags(name, content)
    raise Permanent(f"this is no audio we can read: {_looks_like(content)}")


def _without_tags(audio: bytes) -> bytes:
    """Cut off the ID3v2 tags in front: compressed, a few KB of them unpack to as many GB within FFmpeg."""
    start = 0
    while tag := ID3.match(audio, start):
        a, b, c, d = tag[2]
        footer = tag[1][0] & 0x10
        start = tag.end() + (a << 21 | b << 14 | c << 7 | d) + (10 if footer else 0)
    return audio[start:].lstrip(b"\0") if start else audio


def _without_inner_tags(name: str, content: bytes) -> bytes:
    """Hide the ID3 tags further on. Where sound happens to have these bytes, it is a moment of it."""
    match name:
        case "wav":
            return content.replace(b"id3 ", b"JUNK").replace(b"ID3 ", b"JUNK")
        case "aac":
            return content.replace(b"ID3", bytes(3))
        case _:
            return content


def _looks_like(content: bytes) -> str:
    content = content.removeprefix(b"\xef\xbb\xbf")  # what some put in front of UTF-8
    if not content:
        return "there is nothing in it"
    for name, signature in OTHERS.items():
        if re.match(signature, content, re.DOTALL):
            return f"it looks like {name}"
    return f"it begins with the bytes {content[:8].hex(' ')}"
