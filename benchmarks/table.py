"""An engine run as the Markdown table that README.md shows: a row a contestant, the ratios below."""

from benchmarks.engine import PEERS, RIACHO
from benchmarks.report import Report

COLUMNS = {
    "bulk_add_per_second": "bulk add /s",
    "single_add_per_second": "single add /s",
    "consume_per_second": "consume /s",
    "flow_per_second": "end to end /s",
    "p50_ms_at_half_load": "p50 ms at half load",
    "p99_ms_at_half_load": "p99 ms at half load",
    "bytes_per_waiting_job": "bytes per waiting job",
}


def markdown(report: Report) -> str:
    lines = [_row(["", *COLUMNS.values()]), _row(["---", *("---:" for _ in COLUMNS)])]
    for entrant in (RIACHO, *PEERS):
        suffix = "" if entrant is RIACHO else f"_{entrant.name}"
        if f"consume_per_second{suffix}" in report.figures:
            lines.append(_row([entrant.title, *(_number(report.figures.get(name + suffix)) for name in COLUMNS)]))
    lines += ["", _row(["Riacho's divided by", ""]), _row(["---", "---:"])]
    lines += [_row([f"`{name}`", f"{value:.2f}"]) for name, value in report.figures.items() if "_vs_" in name]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
