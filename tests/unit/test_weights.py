"""Whisper's weights out of two packages: joined whole, checked, once; other models are left alone."""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from stages.audio import weights

pytestmark = pytest.mark.unit

HALVES = (b"first half, ", b"second half")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small packages of the same shape as the real ones; the folder they lie in."""
    folder = tmp_path / "site"
    for number, half in enumerate(HALVES, 1):
        data = folder / f"made_up_part{number}" / "data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").touch()
        (data / f"model.bin.part{number}").write_bytes(half)
    for name in weights.BASE_FILES:
        (folder / "made_up_part1" / "data" / name).write_text(f"content of {name}")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(weights, "BASE_PARTS", ("made_up_part1", "made_up_part2"))
    monkeypatch.setattr(weights, "BASE_SHA256", hashlib.sha256(b"".join(HALVES)).hexdigest())
    for number in (1, 2):
        monkeypatch.delitem(sys.modules, f"made_up_part{number}", raising=False)
    return folder


def assert_whole(model: str) -> None:
    assert (Path(model) / "model.bin").read_bytes() == b"".join(HALVES)
    assert {path.name for path in Path(model).iterdir()} == {"model.bin", *weights.BASE_FILES}
    for name in weights.BASE_FILES:
        assert (Path(model) / name).read_text() == f"content of {name}"


def test_base_is_put_together_once(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    model = weights.locate("base", cache)
    assert_whole(model)
    made = (Path(model) / "model.bin").stat().st_ino
    assert weights.locate("base", cache) == model
    assert (Path(model) / "model.bin").stat().st_ino == made
    assert [str(path) for path in cache.iterdir()] == [model]  # no scratch is left behind


def test_damaged_weights_are_refused_and_leave_nothing(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (packages / "made_up_part2" / "data" / "model.bin.part2").write_bytes(b"second halF")
    with pytest.raises(OSError, match="damaged"):
        weights.locate("base", cache)
    assert list(cache.iterdir()) == []


def test_halves_in_the_wrong_order_are_refused(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, half in zip((1, 2), reversed(HALVES), strict=True):
        (packages / f"made_up_part{number}" / "data" / f"model.bin.part{number}").write_bytes(half)
    with pytest.raises(OSError, match="damaged"):
        weights.locate("base", tmp_path / "cache")


def test_two_at_once_get_the_same_whole_folder(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are held until each has made its own copy, so that both publish."""
    publish, both = weights._publish, Barrier(2)

    def publish_together(made: Path, folder: Path) -> None:
        both.wait(10)
        publish(made, folder)

    monkeypatch.setattr(weights, "_publish", publish_together)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: weights.locate("base", tmp_path / "cache"), range(2))
    assert first == second
    assert_whole(first)
    assert [str(path) for path in (tmp_path / "cache").iterdir()] == [first]


@pytest.mark.parametrize("model", ["small", "large-v3", "Systran/faster-whisper-tiny", "/srv/models/ours"])
def test_other_models_pass_through(packages: Path, tmp_path: Path, model: str) -> None:
    assert weights.locate(model, tmp_path / "cache") == model
    assert not (tmp_path / "cache").exists()


def test_base_without_its_packages_is_left_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BASE_PARTS", ("no_such_package_1", "no_such_package_2"))
    assert weights.locate("base", tmp_path / "cache") == "base"


def test_a_cache_that_cannot_be_written_is_an_error(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="cache"):
        weights.locate("base", tmp_path / "cache")
