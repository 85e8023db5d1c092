"""Text on a terminal: shown, never obeyed; aligned by the cells it takes."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.report.terminal import colors_wanted, columns, pad, paint, printable, shorten, width


@given(st.text())
@example("\x1b]0;title\x07\x9b31m\u202eabc\u2066\u200b\ufeff\r\b\x7f\u2028")
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text, lines=True)
    hidden = {c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}}
    assert hidden <= {"\n"}
    assert "\n" not in printable(text)


def test_escapes_are_those_of_python_strings() -> None:
    assert printable("a\x1b[31mb\u202ec\t\U000e0001") == "a\\x1b[31mb\\u202ec\\t\\U000e0001"
    assert printable("naïve 漢字 👍 ok") == "naïve 漢字 👍 ok"


def test_width_counts_cells() -> None:
    assert width("abc") == 3
    assert width("漢字") == 4
    assert width("e\u0301") == 1
    assert width(paint("red", "bold", "red")) == 3


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z", "M"])), st.integers(3, 30))
def test_shortened_and_padded_text_has_the_width_asked_for(text: str, cells: int) -> None:
    short = shorten(text, cells)
    assert width(short) <= cells
    assert short == text or (width(text) > cells and "…" in short)
    assert width(pad(short, cells)) == cells == width(pad(short, cells, right=True))


def test_columns_are_aligned() -> None:
    lines = columns([["", "n", "what"], ["漢字", "1", "a"], ["b", "1,234", paint("c", "red")]], "l rl")
    assert lines == ["            n what", "  漢字      1 a", "  b     1,234 \x1b[31mc\x1b[0m"]


def test_colors_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert colors_wanted()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colors_wanted()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not colors_wanted()
