"""Local files, below the folders the operator names."""

from collections.abc import Sequence
from pathlib import Path

from pipeline import Permanent


class Files:
    """Reads files below `roots`, and no others."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = [root.resolve() for root in roots]

    def read(self, given: str, limit: int) -> bytes:
        """A file's bytes. Raises Permanent where it is none, none of ours, or over `limit` bytes."""
        path = self._allowed(Path(given))
        try:
            with path.open("rb") as file:
                content = file.read(limit + 1)
        except PermissionError as error:
            raise Permanent(f"cannot read {path}: {error.strerror}") from None
        if len(content) > limit:
            raise Permanent(f"the audio file {path} is over the limit of {limit:,} bytes")
        return content

    def _allowed(self, given: Path) -> Path:
        """The file itself, links followed."""
        try:
            path = given.resolve()
            if not any(path.is_relative_to(root) for root in self._roots):
                raise Permanent(f"{path} is below no folder that audio may come from; see the setting audio.roots")
            if not path.is_file():
                raise Permanent(f"there is no audio file {path}")
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle, a null byte
            raise Permanent(f"{given} cannot be an audio file: {error}") from None
        return path
