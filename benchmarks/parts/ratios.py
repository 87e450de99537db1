"""Riacho's figures divided by its peers'.

A ratio's name leads to the figure it is of. What was not measured of a peer has none.
"""

from collections.abc import Mapping

from benchmarks.peers.entrants import PEERS

Figures = Mapping[str, float]


def to_bullmq(figures: Figures, named: Mapping[str, str]) -> dict[str, float]:
    return {
        f"{name}_vs_bullmq": figures[measured] / figures[f"{measured}_bullmq"]
        for name, measured in named.items()
        if f"{measured}_bullmq" in figures
    }


def to_best_python_peer(figures: Figures, named: Mapping[str, str]) -> dict[str, float]:
    """Of rates: the best is the highest."""
    best = {
        name: max(figures.get(measured + peer.suffix, 0) for peer in PEERS if peer.python)
        for name, measured in named.items()
    }
    return {f"{name}_vs_best_python_peer": figures[named[name]] / rate for name, rate in best.items() if rate}
