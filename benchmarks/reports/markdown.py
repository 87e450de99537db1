"""Tables of Markdown."""


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """With as many digits as are worth reading."""
    if value is None:
        return "not measured"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def knob(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,g}"
