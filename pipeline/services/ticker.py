"""Runs a chore at an interval until stopped, whatever becomes of a single run."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from pipeline.errors import ServerUnavailable

log = logging.getLogger(__name__)


T = TypeVar("T")


async def attempt(run_once: Callable[[], Awaitable[T]], otherwise: T) -> T:
    """What a run answers; where it fails, that is reported, and the answer is `otherwise`."""
    try:
        return await run_once()
    except (ServerUnavailable, RedisError) as error:
        log.warning("%s: %s", run_once.__qualname__, error)
    except Exception:  # a chore that ended here would be missed by nobody until it is needed
        log.exception("%s failed", run_once.__qualname__)
    return otherwise


async def every(seconds: float, run_once: Callable[[], Awaitable[int]], stopping: asyncio.Event) -> None:
    """Call `run_once` every so many seconds; a failing server is reported, and asked again next time."""
    while not stopping.is_set():
        await attempt(run_once, 0)
        try:
            await asyncio.wait_for(stopping.wait(), seconds)
        except TimeoutError:
            continue
