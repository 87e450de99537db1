"""Plots as PNG."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

from benchmarks.reports.report import Plot

SIZE = (8, 4.5)  # inches
DOTS = 110  # an inch
mpl.use("agg")  # no window


def draw(plot: Plot, file: Path) -> Path:
    """One plot into a file, which is returned. Riacho's line is the first, and drawn on top."""
    figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
    for number, (name, points) in enumerate(plot.lines.items()):
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o", label=name, linewidth=1 if number else 2.5, zorder=2 if number else 3)
    if plot.logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=DOTS)
    pyplot.close(figure)
    return file
