"""What the capacity page says of this machine, beside what the machine does.

What a message costs is measured; the model then says at which rate the chat, with one process of each kind, no
longer keeps up, for texts alone and for a mix. That rate is looked for.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from benchmarks.capacity import Costs, limits, sustainable
from benchmarks.parts.chat import SHARED, Chat, running
from benchmarks.parts.costs import costs_of
from benchmarks.parts.openloop import Pace
from benchmarks.reports.report import Report

QUICK = {"seconds": 5, "notes": 8, "exact": 0.15, "audio": 0}
LONGER = 4  # times as long is a mix tried: there are few notes in it, and first they fill the model's calls
WARM_UP = 1.0  # seconds
STEP = 1.25  # from one rate to the next while the limit is not between two
TRIES = 12  # of a rate, at most
console = Console(highlight=False, stderr=True)
CAVEATS = [
    SHARED,
    "The model counts what the load generator takes.",
    "measured: between the highest rate that was kept up with and the lowest that was not, each tried once.",
    "capacity_error_fraction: the greater of both errors, as a fraction of what was measured.",
]


def measure(
    *,
    audio: Annotated[
        float, typer.Option(help="How many of a hundred in the mix are voice notes; 0: no mix.", min=0, max=100)
    ] = 5,
    seconds: Annotated[float, typer.Option(help="How long each rate is tried.", min=1)] = 10,
    notes: Annotated[int, typer.Option(help="Voice notes at once, for what they cost.", min=1)] = 32,
    exact: Annotated[
        float, typer.Option(help="How close the rates on both sides of the limit are.", min=0.001)
    ] = 0.06,
) -> Report:
    """The highest rate that the chat keeps up with here: predicted by the model of CAPACITY.md, and measured."""
    figures = uvloop.run(_checked(audio / 100, seconds, notes, exact))
    knobs: dict[str, float | str] = {"audio": audio, "seconds": seconds, "notes": notes, "exact": exact}
    return Report.of("capacity-check", knobs, {}, CAVEATS, figures)


async def _checked(audio: float, seconds: float, notes: int, exact: float) -> dict[str, float]:
    async with running() as chat:
        began = chat.spent()
        costs = await costs_of(chat, notes)
        found = await _compared("text", chat, costs, 0.0, seconds, exact)
        if audio:
            found |= await _compared("mix", chat, costs, audio, seconds * LONGER, exact)
        others = chat.spent().since(began).others_cores
    worst = max(value for name, value in found.items() if name.endswith("error_fraction"))
    figures = {"capacity_error_fraction": worst, "cores_busy_with_others_work": others}
    return figures | found | costs.figures()


async def _compared(
    name: str, chat: Chat, costs: Costs, audio: float, seconds: float, exact: float
) -> dict[str, float]:
    async def keeps_up(rate: float) -> bool:
        kept_up = (await chat.talk(Pace(rate, seconds, WARM_UP), audio)).kept_up
        console.print(f"{name} at {rate:.0f} a second: {'kept up' if kept_up else 'fell behind'}", style="dim")
        return kept_up

    predicted = sustainable(costs, audio)
    measured = await highest(keeps_up, predicted, exact)
    return {
        f"{name}_predicted_per_second": predicted,
        f"{name}_measured_per_second": measured,
        f"{name}_error_fraction": abs(predicted / measured - 1),
        **{f"{name}_limit_of_{part}": limit for part, limit in limits(costs, audio).items()},
    }


async def highest(keeps_up: Callable[[float], Awaitable[bool]], guess: float, exact: float) -> float:
    """The rate above which it does not keep up, looked for from a guess on: the mean of two on both sides that are
    no further apart than the fraction `exact`, or closest after a dozen tries."""
    good, bad = 0.0, math.inf
    rate = guess
    for _ in range(TRIES):
        if await keeps_up(rate):
            good = rate
        else:
            bad = rate
        if not good:
            rate = bad / STEP
        elif math.isinf(bad):
            rate = good * STEP
        elif bad / good - 1 <= exact:
            break
        else:
            rate = math.sqrt(good * bad)
    return good if math.isinf(bad) else math.sqrt(good * bad) if good else bad
