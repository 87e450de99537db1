"""What several test rooms use: waiting with a deadline, servers, and a pipeline of small stages."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

DEADLINE = 20.0


async def eventually(
    condition: Callable[[], Awaitable[Any]], *, deadline: float = DEADLINE, what: str = "it"
) -> Any:
    """The first true answer of `condition`, asked again every 10 ms. Fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        answer = await condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {deadline:g} s; last answer: {answer!r}")
        await asyncio.sleep(0.01)
