"""A figure of the page: its numbers, the charts drawn from them, and what to see in them."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

Rows = Sequence[dict[str, Any]]

_INVISIBLE = {0x00AD, 0x061C, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF}
_INVISIBLE |= {*range(0x202A, 0x202F), *range(0x2060, 0x206A), *range(0xE0000, 0xE0080)}


class Chart(NamedTuple):
    """A chart of a figure: a Vega-Lite specification, and the heading above it (empty: none)."""

    spec: dict[str, Any]
    title: str = ""


class Figure(NamedTuple):
    """A figure of the page.

    Attributes:
        key: its anchor, and the name of its CSV file.
        title: heading of the figure.
        caption: what to see, and what the uncertainty is.
        rows: the numbers behind it.
        charts: drawn side by side where there is room; empty where ``missing`` says why.
        missing: why there is nothing to draw.
    """

    key: str
    title: str
    caption: str
    rows: Rows
    charts: Sequence[Chart]
    missing: str = ""


def to_csv(rows: Rows) -> str:
    """Rows as CSV (RFC 4180) with a header line; the columns are those of all rows, in the order of appearance.

    Without rows the header is the column that every table has, so that readers of CSV find an empty table.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["run"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def printable(text: str) -> str:
    """Text with invisible characters made visible: U+202E, which reverses text, becomes ``⟨U+202E⟩``.

    Line feeds, tabs and the joiners that scripts and emoji need stay as they are.
    """
    return "".join(f"⟨U+{ord(one):04X}⟩" if _is_hidden(one) else one for one in text.replace("\r\n", "\n"))


def number(value: float | None, sign: str = "") -> str:
    """A number for people: three significant digits, a true minus, ``∞`` for what the sample does not bound."""
    return "∞" if value is None else f"{value:{sign}.3g}".replace("-", "−")


def interval(low: float | None, high: float | None, sign: str = "") -> str:
    """An interval for people; None is an end that the sample does not bound."""
    return f"[{'−∞' if low is None else number(low, sign)}, {number(high, sign)}]"


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _is_hidden(one: str) -> bool:
    return ord(one) in _INVISIBLE or (one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cs"))
