"""How `riacho top` looks: everything on one screen, however small that is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec import UNSET, UnsetType
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.table import Table
from rich.text import Text

from api.load import DEPTHS, QueueLoad, StageLoad
from api.sight import Sight, Trend
from api.status import age, remarks
from pipeline.flow import Pressure

COLOURS: dict[Pressure, str] = {"ok": "green", "throttling": "yellow", "shedding": "red"}
BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
LEAST_LISTS = 4  # lines below which workers, dead letters and schedules are left out
LONGEST = 200  # characters shown of anything
KEYS = "up/down select   p pause   r resume   ? help   q quit"
HELP = """\
up, down or k, j   select a stage
p                  pause it: it starts no more jobs, running ones go on; y says yes
r                  resume it: it starts jobs, and takes new ones in; y says yes
?                  this help, and back
q or Ctrl-C        quit

in/s, out/s   jobs a second over the last minute, or since this began
busy          share of the workers' places in use
drains in     how long all unfinished jobs take at these rates
depth, out    unfinished jobs, and jobs that went out, over the last looks"""


class Column(NamedTuple):
    """`least`: the width of a screen on which there is room for it."""

    name: str
    least: int
    right: bool = True


COLUMNS = (
    Column("stage", 0, right=False),
    Column("state", 0, right=False),
    Column("waiting", 40),
    Column("delayed", 108),
    Column("active", 60),
    Column("retrying", 108),
    Column("dead", 50),
    Column("oldest", 72),
    Column("in/s", 80),
    Column("out/s", 80),
    Column("busy", 96),
    Column("drains in", 96),
    Column("depth", 128, right=False),
    Column("out", 150, right=False),
)
TRENDS = ("depth", "out")
SPARK = 16  # characters
EMPTY = Text(" ")  # what has no text at all is shown as an outline of itself


class View(NamedTuple):
    """What is on the screen: the last sight, if there was one, and whatever the reader is at. `away` says why
    there is no newer one, and `ago` how many seconds old it is."""

    sight: Sight | None
    trends: Mapping[str, Trend]
    selected: str = ""
    question: str = ""
    note: str = ""
    away: str = ""
    ago: float = 0.0
    help: bool = False


def screen(view: View, width: int, height: int, *, plain: bool = False) -> RenderableType:
    """The whole of it; `plain`: on a terminal that shows ASCII alone."""
    parts = [Layout(headline(view), size=1)]
    room = max(0, height - 2)
    if view.help or view.sight is None:
        parts.append(Layout(Text(HELP) if view.help else EMPTY))
    elif room:
        rows = min(room, 1 + _rows(view.sight))
        parts.append(Layout(stages(view, width, rows, plain=plain), size=rows))
        if room - rows >= LEAST_LISTS:
            parts.append(Layout(_lists(view.sight, room - rows)))
        elif room > rows:
            parts.append(Layout(EMPTY))
    if height > 1:
        parts.append(Layout(_foot(view), size=1))
    whole = Layout()
    whole.split_column(*parts)
    return whole


def page(view: View, width: int) -> RenderableType:
    """The same to be printed once, however long it is; without trends."""
    sight = view.sight
    if sight is None:
        return headline(view)
    lists = (_workers(sight), _letters(sight), _schedules(sight))
    parts = [part for part in lists if part.row_count]
    table = stages(view, width, 1 + _rows(sight))
    return Group(headline(view), "", table, *(piece for part in parts for piece in ("", part)))


def headline(view: View) -> Text:
    """The overall state, or that Redis is away, in a line."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("riacho", "bold")
    if view.away:
        line.append(
            f"  Redis is away, figures are {age(view.ago)} old: " if view.sight else "  Redis is away: ",
            "bold red",
        )
        return line.append(shown(view.away), "red")
    if view.sight is None:
        return line.append("  looking ...")
    sight = view.sight
    line.append(f"  {sight.state}", f"bold {COLOURS[sight.state]}")
    line.append(f"  memory {sight.memory:.0%}")
    line.append(
        f"  in {_rate(_sum(q.in1m for q in sight.queues))}/s  out {_rate(_sum(q.out1m for q in sight.queues))}/s"
    )
    return line.append(f"  {datetime.fromtimestamp(sight.at / 1000, UTC):%H:%M:%S} UTC", "dim")


def stages(view: View, width: int, lines: int, *, plain: bool = False) -> Table:
    """Queues and their stages in so many lines with the heading, the selected one among them."""
    columns = [
        column for column in COLUMNS if width >= column.least and (view.trends or column.name not in TRENDS)
    ]
    table = _table(*(Column(column.name, 0, column.right) for column in columns))
    queues = view.sight.queues if view.sight else []
    rows: list[QueueLoad | StageLoad] = []
    for queue in queues:
        rows += [queue, *queue.stages]
    for row in _window(rows, view.selected, lines - 1):
        cells = (
            _queue_cells(row)
            if isinstance(row, QueueLoad)
            else _stage_cells(row, view.trends.get(row.stage), plain)
        )
        chosen = isinstance(row, StageLoad) and row.stage == view.selected
        style = "reverse" if chosen else "bold" if isinstance(row, QueueLoad) else ""
        table.add_row(*(cells.get(column.name, Text()) for column in columns), style=style)
    return table


def spark(values: Sequence[float], *, plain: bool = False) -> str:
    """Bars from 0 to the greatest of the last values."""
    bars, last = PLAIN_BARS if plain else BARS, list(values)[-SPARK:]
    most = max(last, default=0.0) or 1.0
    return "".join(bars[min(len(bars) - 1, int(value / most * len(bars)))] for value in last)


def shown(text: str) -> str:
    """What came from elsewhere, without what a terminal would take for an order, and not too long."""
    return "".join(char if char.isprintable() else " " for char in text[:LONGEST])


def _rows(sight: Sight) -> int:
    return sum(1 + len(queue.stages) for queue in sight.queues)


def _window(rows: list[QueueLoad | StageLoad], selected: str, count: int) -> list[QueueLoad | StageLoad]:
    """So many rows, the selected one among them."""
    place = next((n for n, row in enumerate(rows) if isinstance(row, StageLoad) and row.stage == selected), 0)
    start = min(max(0, place - count // 2), max(0, len(rows) - count))
    return rows[start : start + max(0, count)]


def _queue_cells(queue: QueueLoad) -> dict[str, Text]:
    return {
        "stage": Text(queue.queue),
        "state": Text(queue.state, COLOURS[queue.state]),
        **_figures(queue),
    }


def _stage_cells(stage: StageLoad, trend: Trend | None, plain: bool) -> dict[str, Text]:
    state = ", ".join(remarks(stage)) or stage.state
    return {
        "stage": Text(f"  {stage.stage}"),
        "state": Text(state, "yellow" if state != stage.state else COLOURS[stage.state]),
        **_figures(stage),
        "busy": Text("-" if stage.utilisation is None else f"{stage.utilisation:.0%}"),
        **{name: Text(spark(getattr(trend, name), plain=plain), "cyan") for name in TRENDS if trend},
    }


def _figures(load: QueueLoad | StageLoad) -> dict[str, Text]:
    cells = {depth: Text(f"{getattr(load, depth):,}") for depth in DEPTHS}
    if load.dead:
        cells["dead"].stylize("red")
    return cells | {
        "oldest": Text(age(load.oldest_waiting)),
        "in/s": Text(_rate(load.in1m)),
        "out/s": Text(_rate(load.out1m)),
        "drains in": Text(_drain(load.drain_seconds)),
    }


def _lists(sight: Sight, lines: int) -> RenderableType:
    """Below each other, each with its share of the lines, and what one does not need for the next."""
    parts: list[RenderableType] = []
    left = lines
    tables = [table for table in (_letters, _workers, _schedules) if table(sight).row_count]
    for number, table in enumerate(tables):
        most = left // (len(tables) - number) - 2  # an empty line, a heading
        if most < 1:
            continue
        part = table(sight, most)
        left -= part.row_count + 2
        parts += [Text(""), part]
    return Group(*parts)


def _workers(sight: Sight, most: int = LONGEST) -> Table:
    table = _table(
        Column("worker", 0, right=False), Column("holds", 0), Column("silent", 0), Column("on", 0, right=False)
    )
    for each in sight.workers[:most]:
        name, stages = shown(each.worker), shown(", ".join(each.stages))
        table.add_row(Text(name), str(each.active), age(each.silent_seconds), Text(stages))
    return table


def _letters(sight: Sight, most: int = LONGEST) -> Table:
    table = _table(Column("dead letter", 0, right=False), Column("ago", 0), Column("why", 0, right=False))
    for each in sight.letters[:most]:
        why = shown(f"{each.reason} {each.error}")
        table.add_row(Text(shown(each.job_id)), age((sight.at - each.buried_at) / 1000), Text(why))
    return table


def _schedules(sight: Sight, most: int = LONGEST) -> Table:
    table = _table(Column("schedule", 0, right=False), Column("in", 0), Column("at", 0, right=False))
    for each in sight.schedules[:most]:
        if each.next:
            due = max(0.0, (each.next.ms - sight.at) / 1000)
            table.add_row(Text(shown(each.name)), age(due), each.next.iso)
    return table


def _table(*columns: Column) -> Table:
    # Without lines, as `riacho status` has it.
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="dim")
    for column in columns:
        table.add_column(
            column.name, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis"
        )
    return table


def _foot(view: View) -> Text:
    if view.question:
        return Text(f"{view.question} y says yes, any other key no", "bold reverse", no_wrap=True)
    line = Text(no_wrap=True, overflow="ellipsis")
    if view.note:
        line.append(f"{shown(view.note)}   ", "bold")
    return line.append(KEYS, "dim")


def _sum(rates: Iterable[float | UnsetType]) -> float | UnsetType:
    known: Iterator[float] = (rate for rate in rates if not isinstance(rate, UnsetType))
    first = next(known, None)
    return UNSET if first is None else first + sum(known)


def _rate(rate: float | UnsetType) -> str:
    return "-" if isinstance(rate, UnsetType) else f"{rate:,.1f}"


def _drain(seconds: float | UnsetType | None) -> str:
    if isinstance(seconds, UnsetType):
        return "-"
    return "not yet" if seconds is None else age(seconds)
