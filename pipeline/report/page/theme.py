"""How charts look: one theme, the colours of a page's labels, and what the filter of the page hides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.report.page.figure import number, printable
from pipeline.report.page.palette import Palette

if TYPE_CHECKING:
    import altair as alt

HEIGHT = 300
INK = "currentColor"
FAINT = "#8a8a8a"

CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif",
    "autosize": {"type": "fit-x", "contains": "padding"},
    "view": {"stroke": None},
    "axis": {
        "domainColor": FAINT,
        "tickColor": FAINT,
        "gridColor": FAINT,
        "gridOpacity": 0.18,
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "labelOverlap": True,
    },
    "axisX": {"grid": False},
    "legend": {"symbolFillColor": INK, "labelColor": INK, "titleColor": INK, "titleFontWeight": "normal"},
    "text": {"color": INK, "fontSize": 11},
    "rule": {"color": FAINT},
    "mark": {"tooltip": None},
}


class Data:
    """Rows of a chart by name: the specification of a layer refers to them, and only the whole chart carries them."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def chart(self, rows: Iterable[dict[str, Any]]) -> alt.Chart:
        """A chart of rows, with invisible characters made visible and each interval also as one text."""
        import altair as alt

        name = f"rows{len(self._rows)}"
        self._rows[name] = [_shown(row) for row in rows]
        return alt.Chart(alt.NamedData(name))

    def finish(self, layers: Sequence[Any], description: str, *, height: int = HEIGHT) -> dict[str, Any]:
        """Layers of these rows as one specification, as wide as its place on the page."""
        import altair as alt

        # Vega warns of an axis without data.
        drawn = alt.layer(*(layer for layer in layers if self._rows[layer.data.name]))
        return {
            # Not validated here, since that takes longer than everything else; the tests validate.
            **drawn.to_dict(validate=False),
            "params": [{"name": "hidden", "value": []}],
            "width": "container",
            "height": height,
            "description": description,
            "datasets": self._rows,
        }


def color(palette: Palette, field: str = "label") -> alt.Color:
    """The colour of a label; direct labels and the page's filter name them, so there is no legend."""
    import altair as alt

    return alt.Color(f"{field}:N", scale=hues(palette), legend=None)


def run_color(palette: Palette) -> alt.Color:
    """The colour of a run."""
    import altair as alt

    return alt.Color("run:N", scale=hues(palette), legend=None)


def hues(palette: Palette) -> alt.Scale:
    """One scale for labels and runs, since the layers of a chart share it."""
    import altair as alt

    return alt.Scale(domain=[*palette.labels, *palette.runs], range=[*palette.colors, *palette.runs.values()])


NOT_HIDDEN = "indexof(hidden, datum.label) < 0"
"""Keeps what the page's filter shows: the signal ``hidden`` of every chart holds the labels to leave out."""


def label_heights(points: Sequence[tuple[float, float]], reach: float, gap: float) -> list[float]:
    """Heights for the labels of points (x, y): their own, moved up where another label is nearer than ``gap``.

    Args:
        points: in the order of the labels.
        reach: how far apart two points must lie in x for their labels to fit side by side.
        gap: the height of a line of text, in units of y.
    """
    placed: dict[int, float] = {}
    for i in sorted(range(len(points)), key=lambda i: points[i][1]):
        x, height = points[i]
        near = sorted(placed[j] for j in placed if abs(points[j][0] - x) < reach)
        for other in near:
            if abs(other - height) < gap:
                height = other + gap
        placed[i] = height
    return [placed[i] for i in range(len(points))]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}
    if "low" in row and row.get("value") is not None:
        low = "−∞" if row["low"] is None else number(row["low"])
        shown["interval"] = f"{number(row['value'])} [{low}, {number(row['high'])}]"
    return shown
