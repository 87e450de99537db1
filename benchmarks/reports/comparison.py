"""Two reports of the same scenario, or two folders of them: what changed beyond the noise."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.reports.figures import is_peers, more_is_better
from benchmarks.reports.markdown import number, row
from benchmarks.reports.report import Report, read, read_all

ONCE = 4


class Change(NamedTuple):
    """Of one of Riacho's figures."""

    scenario: str
    figure: str
    before: float
    after: float
    by: float  # as a fraction of `before`
    worse: bool


def compare(before: Path, after: Path, tolerance: float) -> list[Change]:
    """What is in both. A change is one where each median lies outside of the other's spread, and by more than
    `tolerance`: rounds of a few seconds know nothing of how the machine is minutes later. Of what was measured
    once nobody knows the spread: it has to be ONCE times as much. Raises NoReport."""
    olds, news = _reports(before), _reports(after)
    return [
        change
        for scenario in olds.keys() & news.keys()
        for change in _changes(olds[scenario], news[scenario], tolerance)
    ]


def table(changes: list[Change]) -> str:
    if not changes:
        return "Nothing changed beyond the noise."
    lines = [row(["scenario", "figure", "before", "after", "by", ""]), row(["---", "---", *["---:"] * 3, "---"])]
    for change in sorted(changes, key=lambda change: (not change.worse, change.scenario, change.figure)):
        said = "**worse**" if change.worse else "better"
        values = (number(change.before), number(change.after), f"{change.by:+.0%}")
        lines.append(row([change.scenario, f"`{change.figure}`", *values, said]))
    return "\n".join(lines)


def _reports(place: Path) -> dict[str, Report]:
    found = read_all(place) if place.is_dir() else [read(place)]
    return {f"{report.scenario} {report.knobs.get('database', '')}".strip(): report for report in found}


def _changes(old: Report, new: Report, tolerance: float) -> Iterator[Change]:
    for name in old.figures.keys() & new.figures.keys():
        better = more_is_better(name)
        before, after = old.figures[name], new.figures[name]
        if better is None or is_peers(name) or not before:
            continue
        by = after / before - 1
        noise = tolerance if name in old.spread and name in new.spread else ONCE * tolerance
        if abs(by) > noise and not (_within(after, old, name) or _within(before, new, name)):
            yield Change(old.scenario, name, before, after, by, worse=(by < 0) is better)


def _within(value: float, report: Report, name: str) -> bool:
    least, most = report.spread.get(name, (report.figures[name],) * 2)
    return least <= value <= most
