"""What of a written reply is spoken."""

import re
import unicodedata

LINK = re.compile(r"\[([^\[\]]*)\]\([^()\s]*\)")  # Markdown's: its text is spoken
URL = re.compile(r"(?:https?://|www\.)\S*", re.IGNORECASE)
# Bold, italic, struck out (Markdown's and WhatsApp's), and brackets: espeak-ng takes [[…]] for phonemes.
MARKS = re.compile(r"[*_~\[\]]")
LINE_START = re.compile(r"^(?:[-+>#•]+\s+)+")  # lists, quotations, headings

SYMBOLS = {"So"}  # emoji among them
INVISIBLE = {"Sk", "Me", "Cc", "Cf", "Co", "Cs", "Cn"}  # modifiers, joiners, and what is no character at all
VARIATION_SELECTORS = range(0xFE00, 0xFE10)


def speakable(text: str) -> str:
    """One line without emoji, URLs and markup; empty where no word is left. Doing it twice changes nothing."""
    lines = [line for line in map(_line, text.splitlines()) if any(map(str.isalnum, line))]
    return " ".join([*map(_ended, lines[:-1]), *lines[-1:]])


def _line(text: str) -> str:
    seen = "".join(map(_character, text))
    bare = MARKS.sub(" ", URL.sub(" ", LINK.sub(r"\1", seen)))
    return unicodedata.normalize("NFC", LINE_START.sub("", " ".join(bare.split())))


def _character(c: str) -> str:
    """A space in a symbol's place, so that the words beside it stay two."""
    if c.isspace() or c == "°":
        return c
    category = unicodedata.category(c)
    if category in INVISIBLE or ord(c) in VARIATION_SELECTORS:
        return ""
    return " " if category in SYMBOLS else c


def _ended(line: str) -> str:
    """With a pause at the end, where lines become one."""
    return line if line[-1] in ".,;:!?…" else f"{line}."
