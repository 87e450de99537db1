"""A folder of reports as one page of Markdown, with plots beside it."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.entrants import ALL, PEERS
from benchmarks.reports.markdown import knob, number, row
from benchmarks.reports.plots import draw
from benchmarks.reports.report import Report, read_all

PAGE = "report.md"


def document(folder: Path) -> Path:
    """Write the page and its plots, and say where. Raises NoReport."""
    reports = read_all(folder)
    page = folder / PAGE
    page.write_text(
        "\n".join(["# What was measured", "", *(line for each in reports for line in _part(each, folder))])
    )
    return page


def _part(report: Report, folder: Path) -> Iterator[str]:
    knobs = ", ".join(f"{name} {knob(value)}" for name, value in report.knobs.items())
    yield from (
        f"## {report.scenario}",
        "",
        f"{knobs}. Taken {report.taken or 'unknown'}, commit {report.commit or 'unknown'}.",
        "",
    )
    contested = contestants(report)
    if contested:
        yield from (contested, "")
    of_peers = {f"{figure}{peer.suffix}" for peer in PEERS for figure in _contested(report)}
    own = {name: value for name, value in report.figures.items() if name not in of_peers | set(_contested(report))}
    if own:
        yield from (figures(report, own), "")
    for name, plot in report.plots.items():
        file = draw(plot, folder / f"{report.scenario}-{name}.png")
        yield from (f"![{plot.title}]({file.name})", "")
    yield from (f"- {caveat}" for caveat in report.caveats)
    versions = report.versions or {"machine": report.machine}
    yield from ("", "Versions: " + "; ".join(f"{name} {value}" for name, value in versions.items()) + ".", "")


def figures(report: Report, of: dict[str, float]) -> str:
    lines = [row(["figure", "median", "from", "to"]), row(["---", *["---:"] * 3])]
    for name, value in of.items():
        spread = [number(end) for end in report.spread.get(name, ())] or ["", ""]
        lines.append(row([f"`{name}`", number(value), *spread]))
    return "\n".join(lines)


def contestants(report: Report) -> str:
    """A row a contestant, a column a figure that several have; empty where nobody else took part."""
    columns = _contested(report)
    if not columns:
        return ""
    lines = [row(["", *(f"`{name}`" for name in columns)]), row(["---", *["---:"] * len(columns)])]
    for entrant in ALL:
        values = [_with_spread(report, name + entrant.suffix) for name in columns]
        if any(name + entrant.suffix in report.figures for name in columns):
            lines.append(row([entrant.title, *values]))
    return "\n".join(lines)


def _contested(report: Report) -> list[str]:
    """The figures that Riacho and a peer have."""
    return [name for name in report.figures if any(f"{name}{peer.suffix}" in report.figures for peer in PEERS)]


def _with_spread(report: Report, name: str) -> str:
    if name not in report.figures:
        return "not measured"
    spread = report.spread.get(name)
    return number(report.figures[name]) + (f" ({number(spread[0])} to {number(spread[1])})" if spread else "")
