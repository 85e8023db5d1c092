from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.page.words import compare_words


def test_words_that_changed_are_marked() -> None:
    found = compare_words("take the red pill now .", "take a red pill , then .")
    assert found.before == [
        ("take ", False),
        ("the", True),
        (" red pill ", False),
        ("now", True),
        (" .", False),
    ]
    assert found.after == [
        ("take ", False),
        ("a", True),
        (" red pill ", False),
        (", then", True),
        (" .", False),
    ]
    # 4 of 6 and of 7 words stand in both: 1 - 2 * 4 / 13.
    assert found.changed == pytest.approx(5 / 13)


def test_the_same_text_and_no_text() -> None:
    assert compare_words("one two", "one two") == ([("one two", False)], [("one two", False)], 0.0)
    assert compare_words("", "new words") == ([], [("new words", True)], 1.0)
    assert compare_words("", "") == ([], [], 0.0)


@given(st.text(), st.text())
def test_no_letter_is_lost(before: str, after: str) -> None:
    found = compare_words(before, after)
    assert "".join(text for text, _ in found.before) == before
    assert "".join(text for text, _ in found.after) == after
    assert 0 <= found.changed <= 1
    kept = ["".join(t for t, lacking in side if not lacking).split() for side in (found.before, found.after)]
    assert "".join(kept[0]) == "".join(kept[1])
