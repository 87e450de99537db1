"""Checks of where things are kept: the database, the disk, folders and buckets, the model's weights."""

import os
import shutil
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from sqlalchemy import false, select

from stages.audio.weights import look_for
from stages.health.finding import Finding, State, aside
from stages.object_store import bucket_at
from stages.store import Database, StoreUnavailable, metadata

GIB = 2**30
LOW, VERY_LOW = GIB, GIB // 10  # bytes free
REACH = timedelta(seconds=5)


class StoreCheck(msgspec.Struct, frozen=True):
    """Whether the database answers and has all tables and columns. `there`: whether there is one."""

    database: Database
    there: Callable[[], bool]

    async def __call__(self) -> Sequence[Finding]:
        if not self.there():
            return [Finding("store", "warning", "there is no database yet", "'riacho up' or a worker makes it")]
        try:
            for table in metadata.sorted_tables:
                await self.database.read(select(table).where(false()))
        except StoreUnavailable as error:
            return [Finding("store", "failed", str(error), "see the setting store.url, and whether it runs")]
        return [Finding("store", "ok", f"answers, and has its {len(metadata.tables)} tables")]


class SpaceCheck(msgspec.Struct, frozen=True):
    """The free space where the data folder is, or will be."""

    folder: Path

    async def __call__(self) -> Sequence[Finding]:
        free = await aside("space", lambda: shutil.disk_usage(_existing(self.folder)).free)
        state: State = "failed" if free < VERY_LOW else "warning" if free < LOW else "ok"
        remedy = "" if state == "ok" else "make room, or set data.folder to where there is some"
        return [Finding("space", state, f"{free / GIB:,.1f} GiB free for {self.folder}", remedy)]


class ModelCheck(msgspec.Struct, frozen=True):
    """Whether the model's weights are there and whole, and the device can be used; it is not loaded."""

    model: str
    cache: Path
    device: str
    compute_type: str

    async def __call__(self) -> Sequence[Finding]:
        return [await aside("model", self._look)]

    def _look(self) -> Finding:
        weights = look_for(self.model, self.cache)
        remedy = "set RIACHO_AUDIO_MODEL to a model's folder or name; 'base' needs the packages of riacho[weights]"
        if weights.damaged:
            return Finding("model", "failed", weights.detail, remedy)
        if problem := self._device_problem():
            return Finding("model", "failed", problem, "see audio.device and audio.compute_type")
        if not weights.there:
            return Finding("model", "warning", weights.detail, remedy)
        return Finding("model", "ok", weights.detail)

    def _device_problem(self) -> str:
        import ctranslate2  # noqa: PLC0415 - takes a while, and not every process needs it

        cards = ctranslate2.get_cuda_device_count()
        if self.device == "cuda" and not cards:
            return "audio.device is 'cuda', and there is no such device"
        device = "cuda" if cards and self.device != "cpu" else "cpu"
        known = ctranslate2.get_supported_compute_types(device)
        if self.compute_type in ("auto", "default") or self.compute_type in known:
            return ""
        return f"audio.compute_type is '{self.compute_type}'; {device} can do {', '.join(sorted(known))}"


class FolderCheck(msgspec.Struct, frozen=True):
    """Whether a folder, or the one it will be made in, can be written to."""

    name: str
    folder: Path

    async def __call__(self) -> Sequence[Finding]:
        if await aside(self.name, self._can_be_written_to):
            return [Finding(self.name, "ok", f"{self.folder} can be written to")]
        detail = f"{self.folder} cannot be written to"
        return [Finding(self.name, "failed", detail, "see the setting speech.cache")]

    def _can_be_written_to(self) -> bool:
        place = _existing(self.folder)
        return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


class BucketCheck(msgspec.Struct, frozen=True):
    """Whether a bucket can be listed. `place` is `bucket/prefix`."""

    name: str
    endpoint: str
    place: str

    async def __call__(self) -> Sequence[Finding]:
        return [await self._look()]

    async def _look(self) -> Finding:
        bucket, _, prefix = self.place.partition("/")
        where, remedy = f"s3://{self.place}", "see the setting s3.endpoint, and AWS_ACCESS_KEY_ID and its like"
        options = {"connect_timeout": REACH, "timeout": REACH}
        try:
            store = bucket_at(self.endpoint, bucket, prefix=prefix or None, retries=0, options=options)  # type: ignore[arg-type]
            async for _ in obstore.list(store, chunk_size=1):
                break
        except (PermissionDeniedError, UnauthenticatedError):
            return Finding(self.name, "failed", f"{where} may not be listed with these credentials", remedy)
        except (BaseError, ValueError, OSError) as error:  # their texts have what was signed in them
            if "NoSuchBucket" in str(error):
                return Finding(self.name, "failed", f"there is no {where}", "make the bucket, or name another")
            return Finding(self.name, "failed", f"{where} cannot be reached", remedy)
        return Finding(self.name, "ok", f"{where} can be listed")


def _existing(folder: Path) -> Path:
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)
