"""What a check found, and how checks are run."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import msgspec

from pipeline import RiachoError

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
