from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.page.figure import interval, number, printable, to_csv


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("\x00\x1b[31m", "⟨U+0000⟩⟨U+001B⟩[31m"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\udcff", "⟨U+DCFF⟩"),
        ("line\r\nfeed\ttab", "line\nfeed\ttab"),
        ("👩\u200d👧 نمی\u200cدانم", "👩\u200d👧 نمی\u200cدانم"),  # joiners that the script needs
    ],
)
def test_what_cannot_be_seen_is_made_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_what_is_made_visible_stays_so(text: str) -> None:
    once = printable(text)
    assert printable(once) == once
    once.encode("utf-8")


def test_numbers_for_people() -> None:
    assert (number(-0.12345), number(3.0, "+"), number(None)) == ("−0.123", "+3", "∞")
    assert interval(-1.0, None) == "[−1, ∞]"
    assert interval(None, 2.5, "+") == "[−∞, +2.5]"


def test_csv_has_the_columns_of_all_rows() -> None:
    rows = [{"a": 1, "b": None}, {"a": 'two, "2"\nlines', "c": 0.5}]
    assert to_csv(rows) == 'a,b,c\r\n1,,\r\n"two, ""2""\nlines",,0.5\r\n'
    assert to_csv([]) == "run\r\n"


@given(st.text().filter(lambda text: "\x00" not in text))
def test_csv_holds_no_formula_and_loses_no_text(text: str) -> None:
    (_, row) = list(csv.reader(io.StringIO(to_csv([{"a": text, "b": 1}]), newline="")))
    assert row[0][:1] not in ("=", "+", "-", "@")
    assert row[0] in (text, f"'{text}")
