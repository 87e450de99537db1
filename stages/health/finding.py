"""What a check found, and how checks are run."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

import msgspec

from pipeline import RiachoError

T = TypeVar("T")

MOST_HANGING = 3  # threads of one name
MOST_THINGS, AT_ONCE = 50, 10  # of one kind that are looked at

State = Literal["ok", "warning", "failed"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one thing is. `figure` is what the next check may compare with. No secrets are in it."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    figure: int = 0


class Check(msgspec.Struct, frozen=True):
    """Asks one thing, for `timeout` seconds at most; its findings are called `name`, or `name.…`."""

    name: str
    ask: Callable[[], Awaitable[Sequence[Finding]]]
    timeout: float = 10.0


class StillHangs(RiachoError):
    """Earlier looks at the same have not come back."""


async def aside(name: str, look: Callable[[], T]) -> T:
    """What `look` answers, on a thread of its own that nobody waits for: on a file system that hangs, one of the
    event loop's own would be lost to everybody else, and keep the process from ending. Raises StillHangs."""
    thread_name = f"health-{name}"
    if sum(thread.name == thread_name for thread in threading.enumerate()) >= MOST_HANGING:
        raise StillHangs("earlier looks at it have not come back")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(say: Callable[[Any], None], what: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(lambda: None if answer.done() else say(what))

    def run() -> None:
        try:
            tell(answer.set_result, look())
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            tell(answer.set_exception, error)

    threading.Thread(target=run, name=thread_name, daemon=True).start()
    return await answer


async def each_of(
    name: str, things: str, known: Sequence[T], look: Callable[[T], Awaitable[Finding]]
) -> list[Finding]:
    """What is found of each of the first 50, some at a time; before them, how many these are."""
    looked_at, slots = known[:MOST_THINGS], asyncio.Semaphore(AT_ONCE)

    async def in_turn(thing: T) -> Finding:
        async with slots:
            return await look(thing)

    found = await asyncio.gather(*map(in_turn, looked_at))
    more = "" if len(looked_at) == len(known) else f"; only {MOST_THINGS} of {len(known)} are looked at"
    return [Finding(name, "ok", f"{things} to ask: {len(looked_at)}{more}"), *found]


async def examine(checks: Sequence[Check]) -> list[Finding]:
    """What all of them found, asked at the same time. One that raises has failed; nothing is raised here."""
    found = await asyncio.gather(*(_found(check) for check in checks))
    return [finding for some in found for finding in some]


async def _found(check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(check.timeout):
            return await check.ask()
    except TimeoutError:
        return [Finding(check.name, "failed", f"did not answer within {check.timeout:g} s")]
    except RiachoError as error:  # made for a person, and without secrets
        return [Finding(check.name, "failed", str(error))]
    except Exception as error:  # noqa: BLE001 - what it says may have a secret in it
        return [Finding(check.name, "failed", f"the check itself failed: {type(error).__name__}")]
