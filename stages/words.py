"""Words as people write them, made alike."""

import unicodedata


def folded(text: str) -> str:
    """In small letters, without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in letters if not unicodedata.combining(char))


def words_of(text: str) -> list[str]:
    """The words of a text, folded."""
    return "".join(char if char.isalnum() else " " for char in folded(text)).split()
