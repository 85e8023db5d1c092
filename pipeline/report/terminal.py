"""Text for a terminal: what models and people wrote is shown but never obeyed; widths are counted in cells."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Sequence

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_CODES = {"red": "31", "green": "32", "amber": "33", "faint": "2", "bold": "1"}
_CODE = re.compile("\x1b\\[[0-9;]*m")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Text in which nothing acts on a terminal: control and format characters appear as ``\x1b`` or ``\u202e``.

    Args:
        text: any text.
        lines: whether to keep line feeds.
    """
    return "".join(c if (lines and c == "\n") or not is_hidden(c) else _escape(c) for c in text)


def is_hidden(character: str) -> bool:
    """Whether a terminal would obey a character, or show nothing for it, rather than show it."""
    return unicodedata.category(character) in _HIDDEN


def _escape(character: str) -> str:
    code = ord(character)
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def colors_wanted() -> bool:
    """Whether the output is a terminal on which nobody has switched colours off (https://no-color.org)."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, *styles: str) -> str:
    """Text in a colour or another style: red, green, amber, faint, bold."""
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m" if styles else text


def width(text: str) -> int:
    """Cells that printable text takes on a terminal; styles take none, wide characters two."""
    return sum(_cells(c) for c in _CODE.sub("", text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, cells: int, *, right: bool = False) -> str:
    """Text padded with blanks to a number of cells, on its left if ``right``."""
    blanks = " " * max(cells - width(text), 0)
    return blanks + text if right else text + blanks


def shorten(text: str, cells: int) -> str:
    """Text of at most ``cells`` cells; an ellipsis stands for what is left out of its middle."""
    if width(text) <= cells:
        return text
    head, tail = text, text
    while width(head) > (cells - 1) // 2:
        head = head[:-1]
    while width(tail) > cells - 1 - width(head):
        tail = tail[1:]
    return f"{head}…{tail}"


def columns(rows: Sequence[Sequence[str]], layout: str) -> list[str]:
    """Rows of cells as aligned and indented lines.

    Args:
        rows: rows with the same number of cells; the first may be the head.
        layout: one letter per column, ``l`` or ``r`` for the side it is aligned on; a blank between two is a wider
            gap.
    """
    sides = layout.replace(" ", "")
    gaps = ["", *("  " if after == " " else " " for after in re.findall(r"[lr]( ?)(?=[lr])", layout))]
    widths = [max(width(row[i]) for row in rows) for i in range(len(sides))]
    return [
        "  "
        + "".join(
            gap + pad(cell, cells, right=side == "r")
            for gap, cell, cells, side in zip(gaps, row, widths, sides, strict=True)
        ).rstrip()
        for row in rows
    ]
