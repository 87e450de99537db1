"""The queues as a table for the terminal."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from api.load import DEPTHS, QueueLoad, StageLoad

REFUSES = {"ok": "", "throttling": "filling", "shedding": "full"}


def status_table(queues: Sequence[QueueLoad]) -> Table:
    """All stages: their depths, for how long the oldest job waits, and what keeps jobs from coming or going."""
    # Without lines, all of it fits into the 80 columns of a narrow terminal.
    table = Table("stage", box=None, pad_edge=False, collapse_padding=True)
    for column in (*DEPTHS, "oldest"):
        table.add_column(column, justify="right")
    table.add_column("")
    for queue in queues:
        for stage in queue.stages:
            depths = [str(getattr(stage, depth)) for depth in DEPTHS]
            name = f"{stage.queue}.{stage.stage}"
            table.add_row(name, *depths, age(stage.oldest_waiting), "\n".join(remarks(stage)))
    return table


def remarks(stage: StageLoad) -> Iterator[str]:
    if stage.paused:
        yield "paused"
    if stage.draining:
        yield "draining"
    elif word := REFUSES[stage.state]:
        yield word
    if stage.demand and not stage.workers:
        yield "no worker"


def age(seconds: float | None) -> str:
    """In one unit, the largest of which there are two: 90 s, 5 min, 36 h, 4 d."""
    if seconds is None:
        return "-"
    for limit, length, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
