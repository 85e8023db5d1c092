"""Numbers of drift tables as text: value, interval, change, and the star of a change that is more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Cell = Mapping[str, Any]
"""One quantity of a drift table, see ``pipeline.report.drift``."""

NAMES = {
    "mean": "mean",
    "q50": "median",
    "q90": "q90",
    "q99": "q99",
    "cvar_1pct": "CVaR 1%",
    "worst_of_k": "worst of k",
    "exceedance_ratio": "beyond q99, x",
}
"""Display names of the quantities of drift.json; the ratio is to round 0's rate beyond round 0's own q99."""

FOOTNOTE = "* its interval excludes no change. Each interval is taken by itself: by chance alone 1 in 20 has a star."


def number(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, and large ones without an exponent up to a million."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:.0f}" if 10**digits <= abs(rounded) < 1e6 else f"{rounded:.{digits}g}"


def interval(cell: Cell, prefix: str = "", digits: int = 3) -> str:
    """The interval of a value, or of a change (``baseline_``, ``previous_``); an unbounded end is infinite.

    Where all scores that determine the number are equal, nothing is known about their spread: no interval is claimed.
    """
    low, high = cell[prefix + "low"], cell[prefix + "high"]
    if low is not None and low == high and cell.get(prefix + "why"):
        return "all alike"
    return f"[{'-∞' if low is None else number(low, digits)}, {'∞' if high is None else number(high, digits)}]"


def change(cell: Cell, prefix: str, digits: int = 3) -> str:
    """A change with its sign, star and interval, whose ends have ``digits`` digits; a ratio has no sign."""
    value = cell.get(prefix + "value")
    if value is None:
        return "not identified"
    sign = "+" if value >= 0 and cell["quantity"] != "exceedance_ratio" else ""
    return f"{sign}{number(value)}{'*' if moved(cell, prefix) else ' '} {interval(cell, prefix, digits)}"


def moved(cell: Cell, prefix: str) -> int:
    """1 for a rise whose interval excludes no change, -1 for such a fall, else 0."""
    if cell.get(prefix + "value") is None:
        return 0
    low, high = cell[prefix + "low"], cell[prefix + "high"]
    nothing = 1.0 if cell["quantity"] == "exceedance_ratio" else 0.0
    return int(low is not None and low > nothing) - int(high is not None and high < nothing)


def end_of(scorer: str, tail: str) -> str:
    """A scorer's name with the end that is watched, where that is not the upper one."""
    return f"{scorer}, low end" if tail == "lower" else scorer
