"""Two reports of the same scenario, or two folders of them: what changed beyond the noise."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.reports.figures import involves_peer, is_around_zero, is_peers, more_is_better
from benchmarks.reports.markdown import knob, number, row
from benchmarks.reports.report import NoReport, Report, read, read_all

ONCE = 4


class Change(NamedTuple):
    """Of one of Riacho's figures."""

    scenario: str
    figure: str
    before: float
    after: float
    worse: bool


class Comparison(NamedTuple):
    """`missing` are Riacho's figures that were there before, by the same knobs; `notes`: what else differs."""

    changes: list[Change]
    missing: list[str]
    notes: list[str]

    @property
    def worse(self) -> bool:
        return bool(self.missing) or any(change.worse for change in self.changes)


def compare(before: Path, after: Path, tolerance: float) -> Comparison:
    """A change is one where each median lies outside of the other's spread, and by more than `tolerance`: rounds
    of a few seconds know nothing of how the machine is minutes later. Of what was measured once nobody knows the
    spread: it has to be ONCE times as much. Raises NoReport, too where no scenario is in both."""
    olds, news = _reports(before), _reports(after)
    shared = [name for name in olds if name in news]
    if not shared:
        raise NoReport(
            f"no scenario is both in {before} ({', '.join(olds)}) and in {after} ({', '.join(news)}): "
            "compare reports of the same one"
        )
    found = Comparison([], [], [])
    found.notes.extend(f"{name} is only in {before}." for name in olds if name not in news)
    found.notes.extend(f"{name} is only in {after}." for name in news if name not in olds)
    for name in shared:
        found.changes.extend(_changes(olds[name], news[name], tolerance))
        _note(found, olds[name], news[name])
    return found


def table(found: Comparison) -> str:
    lines = [row(["scenario", "figure", "before", "after", "by", ""]), row(["---", "---", *["---:"] * 3, "---"])]
    for change in sorted(found.changes, key=lambda change: (not change.worse, change.scenario, change.figure)):
        said = "**worse**" if change.worse else "better"
        by = f"{change.after / change.before - 1:+.0%}" if change.before > 0 else ""
        values = (number(change.before), number(change.after), by)
        lines.append(row([change.scenario, f"`{change.figure}`", *values, said]))
    changes = lines if found.changes else ["Nothing changed beyond the noise."]
    missing = [f"**missing** {line}" for line in found.missing]
    return "\n".join([*changes, *missing, *found.notes])


def _reports(place: Path) -> dict[str, Report]:
    found = read_all(place) if place.is_dir() else [read(place)]
    return {report.title: report for report in found}


def _changes(old: Report, new: Report, tolerance: float) -> Iterator[Change]:
    for name in old.figures.keys() & new.figures.keys():
        better = more_is_better(name)
        before, after = old.figures[name], new.figures[name]
        if better is None or is_peers(name):
            continue
        noise = tolerance if name in old.spread and name in new.spread else ONCE * tolerance
        if _differ(name, before, after, noise) and not (_within(after, old, name) or _within(before, new, name)):
            yield Change(old.title, name, before, after, worse=(after < before) is better)


def _differ(name: str, before: float, after: float, noise: float) -> bool:
    """By a factor, so that a rate that is halved is as much as one that is doubled; what is around 0, or on one of
    its sides, in its own unit."""
    if before > 0 and after > 0 and not is_around_zero(name):
        return abs(math.log(after / before)) > math.log1p(noise)
    return abs(after - before) > noise


def _within(value: float, report: Report, name: str) -> bool:
    least, most = report.spread.get(name, (report.figures[name],) * 2)
    return least <= value <= most


def _note(found: Comparison, old: Report, new: Report) -> None:
    """What two reports of a scenario have not in common."""
    knobs = _differences(old.knobs, new.knobs)
    gone = [f"{old.title}: `{name}` was measured, and is not." for name in _only(old, new)]
    (found.notes if knobs else found.missing).extend(gone)
    found.notes.extend(f"{old.title}: `{name}` was not measured, and is." for name in _only(new, old))
    if differences := [*knobs, *_differences({"machine": old.machine}, {"machine": new.machine})]:
        found.notes.append(f"{old.title} was measured otherwise: {'; '.join(differences)}.")


def _only(one: Report, other: Report) -> list[str]:
    """Riacho's figures that are judged, and that only one has. A peer may be missing on a machine."""
    names = (name for name in one.figures if name not in other.figures and more_is_better(name) is not None)
    return [name for name in names if not involves_peer(name)]


def _differences(old: Mapping[str, float | str], new: Mapping[str, float | str]) -> list[str]:
    return [
        f"{name} {knob(old.get(name, 'unknown'))}, now {knob(new.get(name, 'unknown'))}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
